"""Does a model still say the same: after export against PyTorch, after a step against its parent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from scipy.stats import rankdata

from ..core.artifact import Check
from ..core.errors import InputError, RefusedStep
from ..core.signature import Signature
from .samples import Samples

ROWS_CHECKED = (1, 2, 256)
# float32 kernels that sum in another order differ by about 1e-6 relative to the terms; a wrong graph differs by far more.
ABSOLUTE_TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 1e-3


class Runs(Protocol):
    """What both sides of a check have: a way to run feeds."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...


def agree(torch_side: Runs, onnx_side: Runs, samples: Samples, signature: Signature, where: str) -> tuple[Check, ...]:
    """One passed Check per number of rows.

    An output element agrees when |onnx - torch| <= 1e-4 + 1e-3 |torch|. Raises InputError naming the rows and the difference when one does
    not, when PyTorch itself gives NaN or infinity, or when a model fails on the rows.
    """
    checks = []
    for rows in ROWS_CHECKED:
        feeds = samples.rows(rows)
        expected, found = _run(torch_side, feeds, f"{where}: PyTorch", rows), _run(onnx_side, feeds, f"{where}: ONNX Runtime", rows)
        worst_absolute, worst_relative = 0.0, 0.0
        for spec in signature.outputs:
            reference, other = np.asarray(expected[spec.name], np.float64), np.asarray(found[spec.name], np.float64)
            at = f"{where}: output '{spec.name}' at {rows} rows"
            if not np.isfinite(reference).all():
                fix = "the model is broken for this input: run it in PyTorch to see where it appears"
                raise InputError.mismatch(at, expected="finite numbers from PyTorch", found="NaN or infinity", fix=fix)
            if spec is signature.score and reference.size != rows:
                raise InputError.mismatch(at, expected=f"{rows} scores, one per row", found=f"{reference.size}")
            if reference.shape != other.shape:
                raise InputError.mismatch(at, expected=f"shape {list(reference.shape)} as in PyTorch", found=f"{list(other.shape)}")
            difference = np.abs(other - reference)
            absolute, relative = float(difference.max(initial=0.0)), float((difference / (np.abs(reference) + 1e-9)).max(initial=0.0))
            worst_absolute, worst_relative = max(worst_absolute, absolute), max(worst_relative, relative)
            if not (difference <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(reference)).all():
                expected_text = f"ONNX Runtime within {ABSOLUTE_TOLERANCE:g} + {RELATIVE_TOLERANCE:g} |score| of PyTorch"
                raise InputError.mismatch(
                    at, expected=expected_text, found=f"a difference of {absolute:.3g} (relative {relative:.3g})", fix=_FIX
                )
        detail = f"{samples.note}: max absolute difference {worst_absolute:.2g}, relative {worst_relative:.2g} (allowed {_ALLOWED})"
        checks.append(Check(name=f"ONNX Runtime agrees with PyTorch at {rows} rows", passed=True, detail=detail))
    return tuple(checks)


_ALLOWED = f"{ABSOLUTE_TOLERANCE:g} + {RELATIVE_TOLERANCE:g} |score|"
_FIX = "the exported graph computes something else; look for branches on shapes or values in forward"


def runs_everywhere(model: Runs, samples: Samples, signature: Signature, where: str) -> tuple[Check, ...]:
    """For a model without a PyTorch original: it gives finite scores of the right shape at every number of rows."""
    checks = []
    for rows in ROWS_CHECKED:
        score = _run(model, samples.rows(rows), where, rows)[signature.score.name]
        if score.size != rows or not np.isfinite(score).all():
            raise InputError.mismatch(
                f"{where}: output '{signature.score.name}'", expected=f"{rows} finite scores", found=f"{score.size}, or NaN"
            )
        checks.append(Check(name=f"runs at {rows} rows", passed=True, detail=f"{samples.note}; no PyTorch original to compare with"))
    return tuple(checks)


def change(parent: Runs, child: Runs, samples: Samples, signature: Signature, where: str) -> dict[str, float]:
    """How a step moved the scores on up to 256 rows: max absolute difference, and Spearman's rank correlation where it is defined.

    Raises RefusedStep when the child gives NaN, infinity or another number of scores than the parent; InputError when either fails to run.
    """
    name = signature.score.name
    for rows in ROWS_CHECKED:
        feeds = samples.rows(rows)
        before = _run(parent, feeds, f"{where}: before the step", rows)[name].astype(np.float64).reshape(-1)
        after = _run(child, feeds, f"{where}: after the step", rows)[name].astype(np.float64).reshape(-1)
        if before.shape != after.shape or not np.isfinite(after).all():
            raise RefusedStep(
                where, f"gives NaN, infinity or another number of scores at {rows} rows after the step", fix="exclude its nodes"
            )
    rows_compared = float(len(before))
    numbers = {"max_abs_difference": float(np.abs(after - before).max()), "rows_compared": rows_compared}
    correlation = spearman(before, after)
    return numbers if correlation is None else {**numbers, "spearman": correlation}


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Rank correlation of two score vectors, None when one of them is constant."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _run(model: Runs, feeds: Mapping[str, np.ndarray], where: str, rows: int) -> dict[str, np.ndarray]:
    try:
        return model.run(feeds)
    except Exception as error:  # each runtime raises its own types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            where, f"fails at {rows} rows ({reason[:240]})", fix="check the input values (ids inside their tables) and shapes"
        ) from error
