"""Ids among an input's values: refused where they are fractions, too large for their dtype or outside their table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .signature import InputSpec

# Above these, neighbouring whole numbers are the same number.
_EXACT_BELOW = {"float16": 2**11, "float32": 2**24, "float64": 2**53}


class WrongId(NamedTuple):
    """A value that is no id of its table; `place` is its column of the last axis (`[3]`), empty where every value is an id."""

    place: str
    expected: str
    found: str


def wrong_id(spec: InputSpec, array: np.ndarray) -> WrongId | None:
    """The first value of `array` (shaped as `spec` says, any dtype) that cannot be an id where `spec` knows of ids; None when all can."""
    if spec.rows_of_table is not None:
        return _wrong(array, np.asarray(float(spec.rows_of_table)), [""], spec.dtype)
    tables = {column.column: column.rows_of_table for column in spec.id_columns if column.column is not None}
    if not tables:
        return None
    limits = np.asarray([np.inf if rows is None else rows for rows in tables.values()])
    return _wrong(array[..., np.asarray([*tables])], limits, [f"[{column}]" for column in tables], spec.dtype)


def _wrong(values: np.ndarray, limits: np.ndarray, places: list[str], dtype: str) -> WrongId | None:
    """Values `[..., places]` (any shape for a single place) against the rows of their tables."""
    exact = _EXACT_BELOW.get(dtype)
    outside = (values >= limits) | ((values < 0) & np.isfinite(limits))
    inexact = ~(np.abs(values) <= exact) | (values != np.floor(values)) if exact is not None else np.zeros(values.shape, dtype=bool)
    wrong = np.argwhere(outside | inexact)
    if not len(wrong):
        return None
    at = tuple(wrong[0])
    which = at[-1] if len(places) > 1 else 0
    limit = float(limits.reshape(-1)[which])
    if np.isfinite(limit) and values[at] == np.floor(values[at]):
        expected = f"indices 0 to {limit - 1:.0f} (rows of its table)"
    else:
        expected = f"a whole number up to {exact}, because it is an id (in {dtype})"
    return WrongId(places[which], expected, f"{values[at]}")
