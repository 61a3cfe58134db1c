"""A number together with its uncertainty."""

from __future__ import annotations

import math

import msgspec


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value with its confidence interval `[low, high]` at `level`.

    A bound that the data cannot give is None, and the value itself is None when nothing was observed; neither is ever
    replaced by a zero. `n` counts the independent units behind it (requests, rounds or users: the field's owner says which).
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    level: float = 0.95

    def __post_init__(self) -> None:
        for number in (self.value, self.low, self.high):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"an estimate holds finite numbers or None, not {number}")

    def text(self, digits: int = 4, scale: float = 1.0) -> str:
        """`1.234 [1.200, 1.270]`, with `?` for what is unknown and every number multiplied by `scale`."""

        def show(number: float | None) -> str:
            return "?" if number is None else f"{number * scale:.{digits}f}"

        return f"{show(self.value)} [{show(self.low)}, {show(self.high)}]"
