"""From data to pixels: linear and logarithmic axes with round ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

from .numbers import MINUS


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """Maps `[low, high]` of the data onto `[start, end]` pixels (`start` may be the larger one: y grows downwards in SVG)."""

    low: float
    high: float
    start: float
    end: float
    kind: Literal["linear", "log"] = "linear"

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.kind == "log" and self.low <= 0):
            raise ValueError(f"no {self.kind} scale from {self.low} to {self.high}")

    def __call__(self, value: float) -> float:
        """Pixel of `value`; a value outside the domain lands outside the range."""
        if self.kind == "log":
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def clamp(self, value: float) -> float:
        """Pixel of the nearest value inside the domain."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, most: int = 6) -> tuple[float, ...]:
        """At most about `most` round values inside the domain: 1, 2 or 5 times a power of ten."""
        return _log_ticks(self.low, self.high, most) if self.kind == "log" else _linear_ticks(self.low, self.high, most)


def spanning(values: Iterable[float], start: float, end: float, *, include: float | None = None, margin: float = 0.08) -> Scale:
    """A linear scale that holds every value (and `include`) with `margin` of the span to spare on both sides; at least one value."""
    numbers = [*values] + ([include] if include is not None else [])
    low, high = min(numbers), max(numbers)
    spare = (high - low) * margin or abs(high) * 0.05 or 1.0
    return Scale(low=low - spare, high=high + spare, start=start, end=end)


def spanning_ratios(values: Iterable[float], start: float, end: float) -> Scale:
    """The same for ratios around 1: logarithmic once they spread over a factor of 2.5, so that one outlier does not flatten the rest."""
    numbers = [*values, 1.0]
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / low < 2.5:
        return spanning(numbers, start, end)
    spare = (high / low) ** 0.08
    return Scale(low=low / spare, high=high * spare, start=start, end=end, kind="log")


def _linear_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    digits = max(0, 1 - math.floor(math.log10(step)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(k * step, digits) + 0.0 for k in range(first, last + 1))


def _log_ticks(low: float, high: float, most: int) -> tuple[float, ...]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        inside = tuple(f * 10.0**d for d in decades for f in factors if low * (1 - 1e-9) <= f * 10.0**d <= high * (1 + 1e-9))
        if len(inside) <= most:
            break
    # Less than a decade may hold no round number of its own: then plain steps read better.
    return inside if len(inside) >= 2 else _linear_ticks(low, high, most)


def tick_text(value: float, ticks: tuple[float, ...]) -> str:
    """`value` with just the decimals that its ticks need."""
    for digits in range(8):
        if all(math.isclose(round(t, digits), t, rel_tol=1e-6, abs_tol=1e-9) for t in ticks):
            return f"{value:,.{digits}f}".replace("-", MINUS)
    return f"{value:g}"
