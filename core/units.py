"""Quantities with units as people write them in budgets: `"20 ms"`, `"5%"`, `"64 MiB"`."""

from __future__ import annotations

import re
from typing import Literal

from .errors import InputError

Dimension = Literal["ms", "bytes", "fraction", "per_s"]

_FACTORS: dict[Dimension, dict[str, float]] = {
    "ms": {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3},
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "fraction": {"%": 0.01, "": 1.0},
    "per_s": {"/s": 1.0, "/min": 1 / 60},
}
_EXAMPLES: dict[Dimension, str] = {"ms": "20 ms", "bytes": "64 MiB", "fraction": "5%", "per_s": "200/s"}
_QUANTITY = re.compile(r"\s*([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*([^\s\d]*)\s*")


def parse_quantity(text: str | float, dimension: Dimension, *, where: str) -> float:
    """Value of `text` in the base unit of `dimension` (ms, bytes, a fraction of 1, or per second).

    A bare number is a fraction; time and size need their unit, so that nobody gates on the wrong one by a factor of 1000.
    """
    factors = _FACTORS[dimension]
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[2] not in factors:
        units = ", ".join(repr(u) for u in factors if u)
        fix = f'for example "{_EXAMPLES[dimension]}"'
        raise InputError.mismatch(where, expected=f"a number with a unit ({units})", found=repr(text), fix=fix)
    return float(match[1]) * factors[match[2]]
