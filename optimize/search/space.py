"""What a search may try, as data: slots in the order their steps are applied. A new technique is one line in `SPACE`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from ...recipes.steps import (
    Blend,
    Fuse,
    HoistRequest,
    LowRank,
    Precompute,
    Prune,
    PruneHeads,
    QuantizeDynamic,
    QuantizeStatic,
    SmoothActivations,
    Step,
)

NOTHING = "-"
RUNTIME = "runtime"

Steps: TypeAlias = tuple[Step, ...]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the sequence: nothing, or one of `choices`, each a short sequence of steps.

    Steps of an `exact` slot change no score, so they are not searched over: a slot's first choice that applies and is not slower is in
    every trial.
    """

    name: str
    choices: tuple[Steps, ...]
    exact: bool = False

    @property
    def labels(self) -> dict[str, Steps]:
        """Every choice by what it is called in tables and in the study; leaving the slot empty comes first."""
        return {NOTHING: (), **{label(steps): steps for steps in self.choices}}


def slot(name: str, *choices: Step | Steps, exact: bool = False) -> Slot:
    """A slot; a choice of a single step needs no tuple around it."""
    return Slot(name=name, choices=tuple(choice if isinstance(choice, tuple) else (choice,) for choice in choices), exact=exact)


SPACE: tuple[Slot, ...] = (
    slot("blend", Blend(alpha=0.75), Blend(alpha=0.5)),
    slot("hoist", HoistRequest(), exact=True),
    slot("fuse", Fuse(), exact=True),
    slot("precompute", Precompute(), exact=True),
    slot("prune", *(Prune(keep=keep) for keep in (0.75, 0.5, 0.3)), Prune(max_error=0.1)),
    slot("prune_heads", PruneHeads(keep=0.5)),
    slot("low_rank", LowRank(max_error=0.05), LowRank(max_error=0.15)),
    slot(
        "quantize",
        QuantizeDynamic(format="native"),
        QuantizeStatic(format="native"),
        (SmoothActivations(), QuantizeStatic(format="native")),
    ),
)


def label(steps: Sequence[Step]) -> str:
    """`prune keep=0.5; quantize_dynamic`: kinds with the settings that are not the usual ones; `-` for no steps."""
    return "; ".join(map(_step_label, steps)) or NOTHING


def _step_label(step: Step) -> str:
    config = type(step).__struct_config__
    usual = {field.name: field.default for field in msgspec.structs.fields(step)}
    said = [f"{name}={_text(value)}" for name, value in msgspec.structs.asdict(step).items() if value != usual[name]]
    return " ".join([str(config.tag), *said])


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def searched(space: Sequence[Slot]) -> tuple[Slot, ...]:
    """The slots that trials choose from."""
    return tuple(one for one in space if not one.exact)


def sequence(space: Sequence[Slot], chosen: Mapping[str, str], exact: Mapping[str, Steps]) -> Steps:
    """The steps of a trial in order: `chosen` has a label per searched slot, `exact` the steps that every trial has, by slot."""
    found = list[Step]()
    for one in space:
        found += exact.get(one.name, ()) if one.exact else one.labels[chosen[one.name]]
    return tuple(found)


def space_digest(space: Sequence[Slot], runtimes: Sequence[str]) -> str:
    """Changes when anything that may be tried does."""
    body = [[one.name, one.exact, [msgspec.to_builtins(steps) for steps in one.choices]] for one in space]
    return hashlib.sha256(msgspec.json.encode([body, list(runtimes)])).hexdigest()
