"""Budget lines for the plane of latency and quality, read back from the names of gates."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

from ..core.errors import InputError
from ..core.units import parse_quantity
from ..profile.result import Comparison, InstanceLatency
from .comparison_tables import quality_value

# How `profile` names a gate: `latency_p95 max_regress 5% on m5.large`, `ndcg@10 max_drop 1% for casual`.
_GATE = re.compile(r"(?P<metric>\S+) (?P<kind>max|min|max_regress|max_drop) (?P<value>.+?)(?: on (?P<instance>\S+))?(?: for (?P<who>.+))?")


class LimitLine(msgspec.Struct, frozen=True, kw_only=True):
    """Everything above `value` on x (latency), or below it on y (quality), breaks the gate called `name`."""

    axis: Literal["x", "y"]
    value: float
    name: str


def limit_lines(comparison: Comparison, instance: InstanceLatency, quantile: str, metric: str) -> tuple[LimitLine, ...]:
    """Gates on everyone's `metric` and on `quantile` of this instance, relative ones multiplied out with the control's value."""
    gates = dict.fromkeys(f.gate for c in comparison.candidates if c.verdict is not None for f in c.verdict.findings)
    control = next((m.quantiles_ms.get(quantile) for m in instance.models if m.model.name == comparison.control.name), None)
    base = {"x": control.value if control is not None else None, "y": None}
    quality = quality_value(comparison, comparison.control.name, metric)
    base["y"] = quality.value if quality is not None else None
    found = []
    for gate in gates:
        match = _GATE.fullmatch(gate)
        if match is None or match["who"] is not None:
            continue
        if match["metric"] == f"latency_{quantile}" and match["instance"] == instance.name:
            found.append(_line("x", gate, match, base["x"]))
        elif match["metric"] == metric:
            found.append(_line("y", gate, match, base["y"]))
    return tuple(line for line in found if line is not None)


def _line(axis: Literal["x", "y"], gate: str, match: re.Match[str], control: float | None) -> LimitLine | None:
    """None when the gate does not bound this axis from its bad side, or the control's value is unknown."""
    kind = match["kind"]
    try:
        amount = parse_quantity(match["value"], "ms" if kind == "max" and axis == "x" else "fraction", where=gate)
    except InputError:
        return None  # not the name of a gate as `profile` writes it: no line is better than a wrong one
    if kind == ("max" if axis == "x" else "min"):
        return LimitLine(axis=axis, value=amount, name=gate)
    if control is None or kind != ("max_regress" if axis == "x" else "max_drop"):
        return None
    return LimitLine(axis=axis, value=control * (1 + amount if axis == "x" else 1 - amount), name=gate)


def near(lines: Iterable[LimitLine], xs: list[float], ys: list[float]) -> tuple[LimitLine, ...]:
    """The lines that can be drawn without squeezing the points into less than half of the plot."""

    def fits(line: LimitLine) -> bool:
        values = xs if line.axis == "x" else ys
        low, high = min(values), max(values)
        return low - (high - low) <= line.value <= high + (high - low)

    return tuple(line for line in lines if fits(line))
