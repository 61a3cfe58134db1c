"""`experiment.toml`: which models compete, who is enrolled, and what would count as a difference."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..core.config import parse_toml, read_toml
from ..core.errors import InputError, UnknownName
from ..core.units import parse_quantity

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Share = Annotated[float, msgspec.Meta(gt=0.0, lt=1.0)]


class Arm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm: its name, the model it serves (a name in the store or a path) and its weight (any positive number)."""

    name: str
    model: str
    weight: float

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"arm name {self.name!r} may hold only letters, digits and . _ + - (at most 100)")
        if not math.isfinite(self.weight) or self.weight <= 0:
            raise ValueError(f"arm '{self.name}': weight must be above 0, found {self.weight}")


class Serving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the router may use the machine.

    `threads` are ONNX Runtime's per request, `concurrency` the requests computed at once per arm, `queue` how many more may wait
    before the router answers 503. A treatment that takes longer than `timeout` is answered by the control instead.
    """

    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 2
    queue: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    timeout: str = "2 s"
    max_body: str = "16 MiB"

    @property
    def timeout_s(self) -> float:
        return parse_quantity(self.timeout, "ms", where="serving.timeout") / 1e3

    @property
    def max_body_bytes(self) -> int:
        return int(parse_quantity(self.max_body, "bytes", where="serving.max_body"))

    def __post_init__(self) -> None:
        if self.timeout_s <= 0 or self.max_body_bytes <= 0:
            raise ValueError("serving: timeout and max_body must be above 0")


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as a person writes it.

    `salt` decides who falls into which arm (the name, when empty); `coverage` is the fraction of users enrolled, the rest gets the
    control and is not analysed. `slate` is the number of items shown per request, `item` the candidate input that holds item ids
    (without it an item is its index among the request's candidates). `minimum_effect` is relative to the control's CTR.
    Raising `coverage` keeps every enrolled user in their arm; changing weights or salt does not, so give a new salt then.
    """

    version: Literal[1] = 1
    name: str
    salt: str = ""
    unit: Literal["user_id"] = "user_id"
    metric: Literal["ctr"] = "ctr"
    control: str
    arms: tuple[Arm, ...]
    coverage: Fraction = 1.0
    slate: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    item: str | None = None
    alpha: Share = 0.05
    power: Share = 0.8
    minimum_effect: str | float = "5%"
    segments: tuple[str, ...] = ()
    serving: Serving = Serving()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name {self.name!r} may hold only letters, digits and . _ + - (at most 100)")
        names = [arm.name for arm in self.arms]
        if len(names) < 2:
            raise ValueError(f"an experiment needs at least two arms, found {len(names)}")
        for kind, values in (("names", names), ("models", [arm.model for arm in self.arms])):
            if len(set(values)) != len(values):
                raise ValueError(f"arm {kind} must differ, found {', '.join(values)}")
        if self.minimum_relative_effect <= 0:
            raise ValueError(f"minimum_effect must be above 0, found {self.minimum_effect}")

    @property
    def minimum_relative_effect(self) -> float:
        """`minimum_effect` as a fraction of the control's CTR."""
        return parse_quantity(self.minimum_effect, "fraction", where="minimum_effect")

    @property
    def effective_salt(self) -> str:
        return self.salt or self.name

    @property
    def control_arm(self) -> Arm:
        return self.arm(self.control)

    @property
    def treatments(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if arm.name != self.control)

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the enrolled users per arm."""
        total = sum(arm.weight for arm in self.arms)
        return {arm.name: arm.weight / total for arm in self.arms}

    @property
    def digest(self) -> str:
        """First 12 hex digits of the sha256 of this configuration, recorded with every exposure."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:12]

    def arm(self, name: str) -> Arm:
        """The arm called `name`; raises UnknownName."""
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise UnknownName(f"experiment '{self.name}'", "arm", name, [a.name for a in self.arms])


def read_experiment(path: Path) -> Experiment:
    """Read `experiment.toml`; raises InputError (and UnknownName for a key or control that is not there)."""
    return _checked(read_toml(path, Experiment), str(path))


def parse_experiment(text: str, *, where: str) -> Experiment:
    """The same for text already in memory; `where` names it in errors."""
    return _checked(parse_toml(text, Experiment, where=where), where)


def _checked(experiment: Experiment, where: str) -> Experiment:
    names = [arm.name for arm in experiment.arms]
    if experiment.control not in names:
        raise UnknownName(f"{where}: control", "arm", experiment.control, names)
    return experiment


def experiment_from_split(models: tuple[str, ...], split: str, *, name: str = "") -> Experiment:
    """The experiment behind `serve v1.0 v1.1 --split 90:10`: the first model is the control, every arm is named after its model.

    Raises InputError when the split does not give every model a positive weight.
    """
    parts = split.split(":")
    expected = f"{len(models)} positive numbers joined by ':', one per model"
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        weights = []
    if len(weights) != len(models) or not all(math.isfinite(w) and w > 0 for w in weights):
        raise InputError.mismatch("--split", expected=expected, found=repr(split), fix="for example --split 90:10")
    stems = [Path(model).stem if "/" in model else model for model in models]
    arms = tuple(Arm(name=s, model=m, weight=w) for s, m, w in zip(stems, models, weights, strict=True))
    try:
        return Experiment(name=name or "-vs-".join(stems)[:100], control=stems[0], arms=arms)
    except ValueError as error:
        raise InputError("serve", str(error), fix="name two different models, or write an experiment.toml") from None


def to_toml(experiment: Experiment) -> str:
    """`experiment` as TOML that `read_experiment` reads back to an equal value."""
    plain = msgspec.to_builtins(experiment)
    arms, serving = plain.pop("arms"), plain.pop("serving")

    def lines(table: dict[str, object]) -> list[str]:
        return [f"{key} = {json.dumps(value)}" for key, value in table.items() if value is not None]

    body = lines(plain)
    for arm in arms:
        body += ["", "[[arms]]", *lines(arm)]
    return "\n".join([*body, "", "[serving]", *lines(serving), ""])
