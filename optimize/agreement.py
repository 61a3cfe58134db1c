"""Do two versions of a model say the same on the same rows: PyTorch and ONNX Runtime after export, parent and child after a step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from scipy.stats import rankdata

from ..core.errors import InputError, RefusedStep
from ..core.signature import Signature
from .samples import Samples

ROWS_CHECKED = (1, 2, 7, 256)
# float32 kernels that sum in another order differ by about 1e-6 relative to the terms; a wrong graph differs by far more.
ABSOLUTE_TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-3
SPREAD_TOLERANCE = 0.01
ROUNDING = 1e-5
_FIX = "the exported graph computes something else; look for branches on shapes or values in forward"


class Runs(Protocol):
    """What both sides of a check have: a way to run feeds."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The largest differences over all outputs, absolute and relative to the reference."""

    absolute: float = 0.0
    relative: float = 0.0

    @property
    def text(self) -> str:
        return f"max absolute difference {self.absolute:.2g}, relative {self.relative:.2g}"


def score_limit(scores: np.ndarray) -> float | None:
    """How far ranked scores may be off whatever else is allowed: 1 % of their spread, and the rounding of float32; None when all are equal.

    Without it, scores that are all small, or all close to one large number, would agree in any order.
    """
    spread = float(np.ptp(scores))
    return SPREAD_TOLERANCE * spread + ROUNDING * float(np.abs(scores).max()) if spread > 0 else None


def difference(
    expected: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
    signature: Signature,
    *,
    limit: float | None,
    at: str,
) -> Difference:
    """How far ONNX Runtime's outputs are from PyTorch's.

    An element agrees when |found - expected| <= 1e-4 + 1e-3 |expected|, and a ranked score also only within `limit` (see `score_limit`);
    infinities have to be the same ones, other dtypes than floats equal. Raises InputError, naming the output and `at`, when one does not
    agree, when PyTorch gives NaN, or when the shapes differ (a dimension of size 1 may be missing on either side: PyTorch squeezes single
    rows away).
    """
    worst = Difference()
    for spec in signature.outputs:
        where = f"{at}: output '{spec.name}'"
        reference, other = np.asarray(expected[spec.name]), np.asarray(found[spec.name])
        if reference.dtype.kind == "f" and (np.isnan(reference).any() or (spec.per_row and not np.isfinite(reference).all())):
            fix = "the model is broken for this input: run it in PyTorch to see where it appears"
            raise InputError.mismatch(where, expected="finite numbers from PyTorch", found="NaN or infinity", fix=fix)
        if _without_ones(reference.shape) != _without_ones(other.shape):
            raise InputError.mismatch(
                where, expected=f"shape {list(reference.shape)} as in PyTorch", found=f"{list(other.shape)}", fix=_FIX
            )
        worst = _worse(worst, _of_output(reference, other.reshape(reference.shape), where))
    if limit is not None:
        _within(limit, signature.scores(expected, where=at), signature.scores(found, where=at), at)
    return worst


def _within(limit: float, expected: np.ndarray, found: np.ndarray, at: str) -> None:
    gap = float(np.abs(found - expected).max(initial=0.0))
    if gap > limit:
        expected_text = f"ranked scores within {limit:.2g} of PyTorch (1 % of their spread)"
        raise InputError.mismatch(at, expected=expected_text, found=f"a difference of {gap:.3g}", fix=_FIX)


def _of_output(reference: np.ndarray, other: np.ndarray, where: str) -> Difference:
    if reference.dtype.kind != "f":
        if not np.array_equal(reference, other):
            unequal = int((reference != other).sum())
            raise InputError.mismatch(
                where, expected="the values of PyTorch", found=f"{unequal} of {reference.size} that are not equal", fix=_FIX
            )
        return Difference()
    expected, found = reference.astype(np.float64), other.astype(np.float64)
    same = expected == found  # infinities too
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(found - expected))
        size = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    absolute, relative = float(gap.max(initial=0.0)), float((gap / (size + 1e-9)).max(initial=0.0))
    if not (gap <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * size).all():
        expected_text = f"ONNX Runtime within {ABSOLUTE_TOLERANCE:g} + {RELATIVE_TOLERANCE:g} |value| of PyTorch"
        raise InputError.mismatch(
            where, expected=expected_text, found=f"a difference of {absolute:.3g} (relative {relative:.3g})", fix=_FIX
        )
    return Difference(absolute=absolute, relative=relative)


def _worse(first: Difference, second: Difference) -> Difference:
    return Difference(absolute=max(first.absolute, second.absolute), relative=max(first.relative, second.relative))


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def change(parent: Runs, child: Runs, samples: Samples, signature: Signature, where: str) -> dict[str, float]:
    """How a step moved the outputs on up to 256 rows: max absolute difference, and Spearman's rank correlation of the scores if defined.

    Raises RefusedStep when the child gives NaN, infinity or other shapes than the parent; InputError when either fails to run.
    """
    before: dict[str, np.ndarray] = {}
    after: dict[str, np.ndarray] = {}
    for rows in ROWS_CHECKED:
        feeds = samples.rows(rows)
        before = run(parent, feeds, f"{where}: before the step")
        after = run(child, feeds, f"{where}: after the step")
        for name, array in before.items():
            if array.shape != after[name].shape or not np.isfinite(after[name][np.isfinite(array)]).all():
                raise RefusedStep(where, f"gives NaN, infinity or another shape at {rows} rows after the step", fix="exclude its nodes")
    moved = [np.abs(after[n].astype(np.float64) - a)[np.isfinite(a)].max(initial=0.0) for n, a in before.items()]
    numbers = {"max_abs_difference": float(max(moved)), "rows_compared": float(ROWS_CHECKED[-1])}
    if signature.score is None:
        return numbers
    correlation = spearman(signature.scores(before, where=where), signature.scores(after, where=where))
    return numbers if correlation is None else {**numbers, "spearman": correlation}


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Rank correlation of two score vectors, None when one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def run(model: Runs, feeds: Mapping[str, np.ndarray], where: str) -> dict[str, np.ndarray]:
    """The outputs of `model`; raises InputError, with the rows and the input that show it, when it fails."""
    try:
        return model.run(feeds)
    except Exception as error:  # each runtime raises its own types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        rows = len(next(iter(feeds.values())))
        fix = "check the input values (ids inside their tables), and forward for sizes that it fixes"
        raise InputError(where, f"fails at {rows} {'row' if rows == 1 else 'rows'} ({reason[:240]}) on {shown(feeds)}", fix=fix) from error


def shown(feeds: Mapping[str, np.ndarray]) -> str:
    """The first row of an input, short enough for one line: `user 4, history [3, 5, 0, ...]`."""
    parts = []
    for name, array in feeds.items():
        row = np.asarray(array[0])
        values = [f"{value:.4g}" for value in row.reshape(-1)[:6]]
        parts.append(f"{name} {values[0]}" if row.ndim == 0 else f"{name} [{', '.join(values)}{', ...' if row.size > len(values) else ''}]")
    more = len(parts) - 8
    return ", ".join(parts[:8]) + (f" and {more} more inputs" if more > 0 else "")
