"""`experiment.toml`: which models compete, who is enrolled, and what would count as a difference."""

from __future__ import annotations

import hashlib
import json
import math
import re
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..core.columns import ALL_SEGMENTS
from ..core.config import parse_toml, read_toml
from ..core.errors import InputError, UnknownName
from ..core.units import parse_quantity

# Units are hashed into this many buckets, and the arms share them; see assignment.py.
BUCKETS = 10_000
# A smaller relative effect needs more users than there are.
SMALLEST_EFFECT = 1e-6
_MODEL_FILES = (".pt", ".pt2", ".onnx")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
# Nearer to 0 or 1 a normal quantile is infinite.
Share = Annotated[float, msgspec.Meta(ge=1e-9, le=1 - 1e-9)]


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
        if not 0 < self.timeout_s < math.inf:
            raise ValueError(f"serving: timeout must be finite and above 0, found {self.timeout}")
        if not 1 <= parse_quantity(self.max_body, "bytes", where="serving.max_body") < math.inf:
            raise ValueError(f"serving: max_body must be finite and at least 1 B, found {self.max_body}")


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
        if not SMALLEST_EFFECT <= self.minimum_relative_effect < math.inf:
            raise ValueError(f"minimum_effect must be above 0 (from {SMALLEST_EFFECT:g} on), found {self.minimum_effect}")
        if ALL_SEGMENTS in self.segments:
            raise ValueError(f"a segment may not be called '{ALL_SEGMENTS}': results name everybody so")
        for name, count in self.buckets.items():
            if count == 0:
                raise ValueError(f"arm '{name}': its weight gives it none of {BUCKETS:,} buckets of users; give it more, or leave it out")
        if self.coverage > 0 and self.covered_buckets == 0:
            raise ValueError(f"coverage {self.coverage:g} enrols none of {BUCKETS:,} buckets of users; raise it, or set it to 0")

    @property
    def minimum_relative_effect(self) -> float:
        """`minimum_effect` as a fraction of the control's CTR."""
        return parse_quantity(self.minimum_effect, "fraction", where="minimum_effect")

    @property
    def effective_salt(self) -> str:
        return self.salt or self.name

    @property
    def treatments(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if arm.name != self.control)

    @property
    def shares(self) -> dict[str, float]:
        """Fraction of the enrolled users per arm, as the buckets give it (weights 1:2 are 0.3333 and 0.6667)."""
        return {name: count / BUCKETS for name, count in self.buckets.items()}

    @property
    def buckets(self) -> dict[str, int]:
        """How many of the buckets each arm has; they follow one another in the order of the arms, from bucket 0."""
        total = sum(arm.weight for arm in self.arms)
        edges = [round(reached / total * BUCKETS) for reached in accumulate(arm.weight for arm in self.arms)]
        return {arm.name: edge - before for arm, before, edge in zip(self.arms, [0, *edges], edges, strict=False)}

    @property
    def covered_buckets(self) -> int:
        """How many of the admission buckets are enrolled."""
        return round(self.coverage * BUCKETS)

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
    names = [_name_of(model) for model in models]
    try:
        arms = tuple(Arm(name=n, model=m, weight=w) for n, m, w in zip(names, models, weights, strict=True))
        return Experiment(name=name or "-vs-".join(names)[:100], control=names[0], arms=arms)
    except ValueError as error:
        raise InputError("serve", str(error), fix="name two different models, or write an experiment.toml") from None


def _name_of(model: str) -> str:
    """What an arm is called after its model: a path's last part, without the suffix of a model file (folders may hold dots: `v1.0`)."""
    if "/" not in model:
        return model
    path = Path(model)
    return path.stem if path.suffix in _MODEL_FILES else path.name


def to_toml(experiment: Experiment) -> str:
    """`experiment` as TOML that `read_experiment` reads back to an equal value."""
    plain = msgspec.to_builtins(experiment)
    arms, serving = plain.pop("arms"), plain.pop("serving")

    def literal(value: object) -> str:
        # JSON and TOML differ in two things: TOML has no surrogate pairs, and wants the delete character escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    def lines(table: dict[str, object]) -> list[str]:
        return [f"{key} = {literal(value)}" for key, value in table.items() if value is not None]

    body = lines(plain)
    for arm in arms:
        body += ["", "[[arms]]", *lines(arm)]
    return "\n".join([*body, "", "[serving]", *lines(serving), ""])
