"""How numbers become text: units, digits that the uncertainty supports, and `unknown` for what nobody measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from ..core.estimate import Estimate

UNKNOWN = "unknown"
MINUS = "\u2212"  # the sign as wide as a plus
Format = Callable[[float], str]


def decimals(value: float) -> int:
    """Decimals that leave three significant digits: 3 below 1, 2 below 10, 1 below 100, none above."""
    size = abs(value)
    return 3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0


def fixed(digits: int, scale: float = 1.0, suffix: str = "") -> Format:
    """A format with `digits` decimals of `value * scale`, thousands separated by a comma."""
    return lambda value: f"{_no_minus_zero(value * scale, digits):,.{digits}f}{suffix}"


def signed(digits: int, scale: float = 1.0, suffix: str = "") -> Format:
    """A format for changes: always with a sign, except for what rounds to zero."""

    def show(value: float) -> str:
        text = f"{abs(value * scale):,.{digits}f}"
        sign = "" if round(value * scale, digits) == 0 else "+" if value > 0 else MINUS
        return f"{sign}{text}{suffix}"

    return show


def _no_minus_zero(value: float, digits: int) -> float:
    return 0.0 if round(value, digits) == 0 else value


def known(value: float | None, form: Format) -> str:
    """`form(value)`, or `unknown`: never a zero for what was not observed."""
    return UNKNOWN if value is None else form(value)


def bounds(estimate: Estimate, form: Format) -> str:
    """`[low, high]`; a bound the data cannot give says so, and an interval without any bound is one word."""
    if estimate.low is None and estimate.high is None:
        return f"[{UNKNOWN}]"
    return f"[{known(estimate.low, form)}, {known(estimate.high, form)}]"


def with_interval(estimate: Estimate, form: Format) -> str:
    """`0.98 [0.95, 1.01]`, or `unknown`."""
    return UNKNOWN if estimate.value is None else f"{form(estimate.value)} {bounds(estimate, form)}"


def ms_format(estimate: Estimate) -> Format:
    """Milliseconds with the digits that suit the value, so that value and bounds line up."""
    numbers = [n for n in (estimate.value, estimate.low, estimate.high) if n is not None]
    return fixed(decimals(numbers[0]) if numbers else 2)


def ms(value: float | None) -> str:
    """A bare number of milliseconds."""
    return UNKNOWN if value is None else fixed(decimals(value))(value)


def middle_ms(values: Sequence[float]) -> str:
    """Median of a value per launch; `unknown` when there was no launch."""
    return ms(median(values)) if values else UNKNOWN


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.{0 if unit == 'B' else decimals(value) - 1 if abs(value) < 100 else 0}f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


def count(value: int | None) -> str:
    """A whole number with its thousands separated."""
    return UNKNOWN if value is None else f"{value:,}"


def p_value(value: float | None) -> str:
    """Three decimals, or the power of ten of a very small one."""
    if value is None:
        return UNKNOWN
    if value < 0.001:
        return f"{value:.0e}".replace("e-0", "e-") if value >= 1e-12 else "< 1e-12"
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s` or `1 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
