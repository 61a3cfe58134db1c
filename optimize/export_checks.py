"""What is verified after an export, and what is said of a model that only just passes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from ..core.artifact import Check
from ..core.errors import InputError
from ..core.signature import InputSpec, Signature
from .agreement import ROWS_CHECKED, Difference, Runs, difference, run, shown, tolerances
from .samples import Samples


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """Checks that were passed, sentences about what a user should know although they were, and the differences that were `allowed`."""

    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()
    allowed: dict[str, float] = {}


def verify(torch_side: Runs, onnx_side: Runs, samples: Samples, signature: Signature, where: str) -> Verified:
    """Compare the exported graph with PyTorch at 1, 2, 7 and 256 rows.

    Also: both give the same twice, and ids outside their tables are refused by the graph. Raises InputError naming the rows, the output,
    the difference and the input that shows it.
    """
    allowed = tolerances(run(torch_side, samples.rows(ROWS_CHECKED[-1]), f"{where}: PyTorch"))
    checks = [_deterministic(torch_side, onnx_side, samples, signature, where)]
    warnings: list[str] = []
    for rows in ROWS_CHECKED:
        found, warning = _at_rows(torch_side, onnx_side, samples.rows(rows), signature, allowed, where)
        checks.append(Check(name=f"ONNX Runtime agrees with PyTorch at {_rows(rows)}", passed=True, detail=f"{samples.note}: {found.text}"))
        warnings.extend([warning] if warning else [])
    checks.extend(_ids(torch_side, onnx_side, samples, signature, allowed, where))
    return Verified(checks=tuple(checks), warnings=(*warnings, *_constant_scores(torch_side, samples, signature, where)), allowed=allowed)


def verify_sizes(
    torch_side: Runs,
    onnx_side: Runs,
    resized: Mapping[str, dict[str, np.ndarray]],
    signature: Signature,
    allowed: Mapping[str, float],
    where: str,
) -> tuple[tuple[Check, ...], InputError | None]:
    """Compare both sides on feeds with another size of a dimension: a Check per dimension, up to the first that disagrees, and how."""
    checks: list[Check] = []
    for dim, feeds in resized.items():
        size = next(feeds[spec.name].shape[spec.shape.index(dim)] for spec in signature.inputs if dim in spec.shape)
        at = f"{where}: at {dim} = {size}"
        try:
            expected, found = run(torch_side, feeds, f"{at}: PyTorch"), run(onnx_side, feeds, f"{at}: ONNX Runtime")
            gap = difference(expected, found, signature, allowed=allowed, at=at)
        except InputError as error:
            return tuple(checks), error
        checks.append(Check(name=f"ONNX Runtime agrees with PyTorch at {dim} = {size}", passed=True, detail=gap.text))
    return tuple(checks), None


def runs_everywhere(model: Runs, samples: Samples, signature: Signature, where: str) -> tuple[Check, ...]:
    """For a model without a PyTorch original: it gives finite scores, one per row, at every number of rows, and the same twice."""
    checks = []
    for rows in ROWS_CHECKED:
        feeds = samples.rows(rows)
        found, again = run(model, feeds, where), run(model, feeds, where)
        for name, array in found.items():
            if not _same(array, again[name]):
                raise InputError(f"{where}: output '{name}'", "differs between two runs on the same input", fix=_RANDOM)
        if signature.score is not None:
            _one_score_per_row(found, signature, rows, where)
        checks.append(Check(name=f"runs at {_rows(rows)}", passed=True, detail=f"{samples.note}; no PyTorch original to compare with"))
    return tuple(checks)


def _at_rows(
    torch_side: Runs, onnx_side: Runs, feeds: dict[str, np.ndarray], signature: Signature, allowed: Mapping[str, float], where: str
) -> tuple[Difference, str | None]:
    """The difference at this number of rows, and a warning where PyTorch itself does not run on a single one."""
    rows = len(next(iter(feeds.values())))
    at = f"{where}: at {_rows(rows)}"
    warning = None
    try:
        expected = run(torch_side, feeds, f"{where}: PyTorch")
    except InputError as error:
        if rows != 1:
            raise
        expected = _first_of_two(torch_side, feeds, signature, where)
        warning = f"PyTorch itself {error.problem}; the exported graph runs, and gives this row the score it has among two rows"
    found = run(onnx_side, feeds, f"{where}: ONNX Runtime")
    try:
        gap = difference(expected, found, signature, allowed=allowed, at=at)
    except InputError:
        if rows == 1 and warning is None:
            _refuse_another_score_alone(torch_side, found, feeds, signature, allowed, where)
        raise
    if signature.score is not None:
        _one_score_per_row(expected, signature, rows, f"{at}: PyTorch")
    return gap, warning


def _first_of_two(torch_side: Runs, feeds: dict[str, np.ndarray], signature: Signature, where: str) -> dict[str, np.ndarray]:
    """What PyTorch says of a single row that it is given twice."""
    twice = run(torch_side, {name: np.repeat(array, 2, axis=0) for name, array in feeds.items()}, f"{where}: PyTorch")
    return {spec.name: twice[spec.name][:1] if twice[spec.name].ndim else twice[spec.name] for spec in signature.outputs}


def _refuse_another_score_alone(
    torch_side: Runs,
    found: Mapping[str, np.ndarray],
    feeds: dict[str, np.ndarray],
    signature: Signature,
    allowed: Mapping[str, float],
    where: str,
) -> None:
    """Raise InputError when it is PyTorch that scores a single row otherwise than the same row among two, where the graph does not."""
    try:
        difference(_first_of_two(torch_side, feeds, signature, where), found, signature, allowed=allowed, at=where)
    except InputError:
        return
    problem = f"gives a single row another output than the same row among two, on {shown(feeds)}"
    fix = "look in forward for a squeeze() that drops the row too, and name its axis: squeeze(-1)"
    raise InputError(f"{where}: PyTorch", problem, fix=fix) from None


def _one_score_per_row(outputs: Mapping[str, np.ndarray], signature: Signature, rows: int, where: str) -> None:
    scores = signature.scores(outputs, where=where)
    if scores.size != rows or not np.isfinite(scores).all():
        found = f"{scores.size}" if scores.size != rows else "NaN or infinity"
        raise InputError.mismatch(
            f"{where}: output '{signature.outputs[0].name}'", expected=f"{rows} finite scores, one per row", found=found
        )


_RANDOM = "take the random numbers out of forward (is a dropout applied outside training?)"


def _deterministic(torch_side: Runs, onnx_side: Runs, samples: Samples, signature: Signature, where: str) -> Check:
    feeds = samples.rows(7)
    for side, name in ((torch_side, "PyTorch"), (onnx_side, "ONNX Runtime")):
        first, second = run(side, feeds, f"{where}: {name}"), run(side, feeds, f"{where}: {name}")
        for spec in signature.outputs:
            if not _same(first[spec.name], second[spec.name]):
                raise InputError(f"{where}: {name}: output '{spec.name}'", "differs between two runs on the same input", fix=_RANDOM)
    return Check(name="same input, same output", passed=True, detail="PyTorch and ONNX Runtime, twice on 7 rows, bit for bit")


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def _constant_scores(torch_side: Runs, samples: Samples, signature: Signature, where: str) -> tuple[str, ...]:
    if signature.score is None:
        return ()
    scores = signature.scores(run(torch_side, samples.rows(ROWS_CHECKED[-1]), f"{where}: PyTorch"), where=where)
    return () if np.ptp(scores) > 0 else (f"PyTorch gives every row the same score on {samples.note}: that both agree says little",)


def _ids(
    torch_side: Runs, onnx_side: Runs, samples: Samples, signature: Signature, allowed: Mapping[str, float], where: str
) -> tuple[Check, ...]:
    """An id outside its table has to fail in the graph as it does in PyTorch; where PyTorch takes it, both have to agree."""
    quiet_ids, checked = [], []
    for spec in signature.inputs:
        for place, value in _outside(spec):
            feeds = {name: array.copy() for name, array in samples.rows(2).items()}
            feeds[spec.name][(0, *place)] = value
            expected, found = _attempt(torch_side, feeds), _attempt(onnx_side, feeds)
            checked.append(value)
            if expected is not None and found is not None:
                at = f"{where}: with the id {value} in '{spec.name}'"
                difference(expected, found, signature, allowed=allowed, at=at)
            elif expected is not None:
                problem = f"ONNX Runtime refuses the id {value} that PyTorch takes, on {shown(feeds)}"
                raise InputError(
                    f"{where}: input '{spec.name}'", problem, fix="map unknown ids inside forward with torch.clamp or torch.where"
                )
            elif found is not None:
                quiet_ids.append(f"{spec.name}{list(place) if any(place) else ''} = {value}")
    if not checked:
        return ()
    detail = "as in PyTorch" if not quiet_ids else f"except {', '.join(quiet_ids[:8])}, where only requests and the router refuse them"
    return (Check(name="ids outside their tables fail", passed=True, detail=detail),)


def _outside(spec: InputSpec) -> list[tuple[tuple[int, ...], int]]:
    """Where to put an id that no table has, and which: just behind the last row, and just before the first."""
    first = (0,) * (len(spec.shape) - 1)
    tables = {first: spec.rows_of_table} if spec.rows_of_table is not None else {}
    for column in spec.id_columns:
        if column.column is not None and column.rows_of_table is not None:
            tables[(*first[:-1], column.column)] = column.rows_of_table
    return [(place, value) for place, rows in tables.items() for value in (rows, -1)]


def _attempt(side: Runs, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    try:
        return side.run(feeds)
    except Exception:  # a refusal is what is asked for, and each runtime raises its own types
        return None


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
