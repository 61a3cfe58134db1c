"""`budget.toml`: what a treatment must keep to, as closed and frozen types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..core import columns
from ..core.config import parse_toml, read_toml
from ..core.errors import InputError, UnknownName
from ..core.units import Dimension, parse_quantity
from ..quality.metrics import parse_metric
from .machines.instance import LOCAL, find_instance
from .result import QUANTILES

MOST_PER_S = 1e6
Level = Literal["error", "warn"]
LATENCY = {f"latency_{name}": p for name, p in QUANTILES.items()}
# Metrics of a process on an instance, and their base units.
_MEASURED: dict[str, Dimension] = {**dict.fromkeys(LATENCY, "ms"), "cold_start": "ms", "memory": "bytes"}
_COSTS: dict[str, Dimension] = {**_MEASURED, "size": "bytes"}
_QUALITY_EXAMPLES = ("ndcg@10", "auc")


class Max(msgspec.Struct, frozen=True, kw_only=True, tag="max"):
    """At most `value` (ms or bytes)."""

    value: float
    text: str


class Min(msgspec.Struct, frozen=True, kw_only=True, tag="min"):
    """At least `value` (a share)."""

    value: float
    text: str


class MaxRegress(msgspec.Struct, frozen=True, kw_only=True, tag="max_regress"):
    """At most (1 + `value`) times the control."""

    value: float
    text: str


class MaxDrop(msgspec.Struct, frozen=True, kw_only=True, tag="max_drop"):
    """At least (1 - `value`) times the control."""

    value: float
    text: str


Limit = Max | Min | MaxRegress | MaxDrop
_LIMITS: dict[str, type[Limit]] = {"max": Max, "min": Min, "max_regress": MaxRegress, "max_drop": MaxDrop}


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured at once: an instance answering one request at a time, or requests that arrive at `rate_per_s` (Poisson)."""

    instance: str
    rate_per_s: float | None = None

    @property
    def name(self) -> str:
        """`m5.large`, or `m5.large@200/s` in an open loop."""
        return self.instance if self.rate_per_s is None else f"{self.instance}@{self.rate_per_s:g}/s"


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One requirement. `at` is None for metrics that no machine changes, `segment` is None for those that no user does."""

    metric: str
    at: Conditions | None
    segment: str | None
    limit: Limit
    level: Level = "error"
    alpha: float = 0.05
    emulated_may_pass: bool = False

    @property
    def name(self) -> str:
        """`latency_p95 max 20 ms on m5.large`: how findings call this gate."""
        where = f" on {self.at.name}" if self.at is not None else ""
        who = f" for {self.segment}" if self.segment not in (None, columns.ALL_SEGMENTS) else ""
        return f"{self.metric} {type(self.limit).__struct_config__.tag} {self.limit.text}{where}{who}"

    @property
    def is_quality(self) -> bool:
        return self.metric not in _COSTS

    @property
    def is_time(self) -> bool:
        """Whether it is about milliseconds, which depend on the machine as memory does not."""
        return _COSTS.get(self.metric) == "ms"


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """All gates of a budget and where they were read."""

    source: str
    gates: tuple[Gate, ...]

    @property
    def conditions(self) -> tuple[Conditions, ...]:
        """What gates need to have measured, in order of appearance."""
        return tuple(dict.fromkeys(g.at for g in self.gates if g.at is not None))

    @property
    def instances(self) -> tuple[str, ...]:
        """Instances that gates speak about, in order of appearance."""
        return tuple(dict.fromkeys(at.instance for at in self.conditions))

    @property
    def quality_metrics(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(g.metric for g in self.gates if g.is_quality))


class _GateRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A `[[gate]]` as written."""

    metric: str
    instance: str | None = None
    rate: str | None = None
    segment: str | None = None
    max: str | float | None = None
    min: str | float | None = None
    max_regress: str | float | None = None
    max_drop: str | float | None = None
    level: Level = "error"
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    allow: Literal["emulated"] | None = None


class BudgetFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`budget.toml` as written."""

    gate: Annotated[tuple[_GateRow, ...], msgspec.Meta(min_length=1)]
    version: Literal[1] = 1


def read_budget(path: Path) -> Budget:
    """Read `budget.toml`; raises InputError or UnknownName naming the gate and the key."""
    return _budget(read_toml(path, BudgetFile), source=str(path))


def parse_budget(text: str, *, source: str = "budget") -> Budget:
    """The same for text already in memory."""
    return _budget(parse_toml(text, BudgetFile, where=source), source=source)


def _budget(file: BudgetFile, *, source: str) -> Budget:
    return Budget(source=source, gates=tuple(_gate(row, f"{source}: gate {number}") for number, row in enumerate(file.gate, start=1)))


def _gate(row: _GateRow, where: str) -> Gate:
    quality = _is_quality(row.metric, where)
    measured = row.metric in _MEASURED
    if row.instance is not None and not measured:
        raise InputError(where, f"{row.metric} is the same on every instance", fix="remove 'instance'")
    if row.segment is not None and not quality:
        raise InputError(where, f"{row.metric} is not measured per segment", fix="remove 'segment'")
    if row.rate is not None and row.metric not in LATENCY:
        raise InputError(where, f"{row.metric} does not depend on how requests arrive", fix="remove 'rate'")
    return Gate(
        metric=row.metric,
        at=_conditions(row, where) if measured else None,
        segment=(row.segment or columns.ALL_SEGMENTS) if quality else None,
        limit=_limit(row, quality, where),
        level=row.level,
        alpha=row.alpha,
        emulated_may_pass=row.allow == "emulated",
    )


def _conditions(row: _GateRow, where: str) -> Conditions:
    instance = find_instance(row.instance or LOCAL, where=where).name
    if row.rate is None:
        return Conditions(instance=instance)
    rate_per_s = parse_quantity(row.rate, "per_s", where=f"{where}: rate")
    if not 0 < rate_per_s <= MOST_PER_S:
        raise InputError.mismatch(f"{where}: rate", expected=f"more than 0 and at most {MOST_PER_S:g}/s", found=repr(row.rate))
    return Conditions(instance=instance, rate_per_s=rate_per_s)


def _is_quality(metric: str, where: str) -> bool:
    """Whether `metric` is a ranking metric; raises UnknownName when it is no metric at all."""
    if metric in _COSTS:
        return False
    if metric == "auc" or re.fullmatch(r"ndcg@\d+", metric):
        parse_metric(metric, where=where)
        return True
    raise UnknownName(where, "metric", metric, [*_COSTS, *_QUALITY_EXAMPLES])


def _limit(row: _GateRow, quality: bool, where: str) -> Limit:
    written = {key: getattr(row, key) for key in _LIMITS if getattr(row, key) is not None}
    fitting = ("min", "max_drop") if quality else ("max", "max_regress")
    if len(written) != 1 or next(iter(written)) not in fitting:
        found = " and ".join(f"'{k}'" for k in written) or "none"
        raise InputError.mismatch(where, expected=f"exactly one of '{fitting[0]}' and '{fitting[1]}' for {row.metric}", found=found)
    key, text = next(iter(written.items()))
    dimension: Dimension = _COSTS[row.metric] if key == "max" else "fraction"
    value = parse_quantity(text, dimension, where=f"{where}: {key}")
    if dimension == "fraction" and key != "min" and "%" not in str(text) and value >= 1:
        # `max_drop = 1` is meant as 1 % and would allow everything.
        raise InputError.mismatch(f"{where}: {key}", expected=f'a share below 1 or text like "{value:g}%"', found=repr(text))
    if value < 0 or (key in ("min", "max_drop") and value > 1):
        most = " to 100%" if key in ("min", "max_drop") else " on"
        expected = f"a share from 0{most}" if dimension == "fraction" else "a positive limit"
        raise InputError.mismatch(f"{where}: {key}", expected=expected, found=repr(text))
    return _LIMITS[key](value=value, text=str(text))
