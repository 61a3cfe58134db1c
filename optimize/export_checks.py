"""What is verified after an export, and what is said of a model that only just passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from ..core.artifact import Check
from ..core.errors import InputError
from ..core.signature import InputSpec, Signature
from .agreement import ABSOLUTE_TOLERANCE, ROUNDING, ROWS_CHECKED, Difference, Runs, difference, run, score_limit, shown
from .samples import Samples


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """The original in PyTorch and the graph exported from it; `where` names the model, `limit` bounds the difference of ranked scores."""

    original: Runs
    exported: Runs
    signature: Signature
    limit: float | None
    where: str

    def in_pytorch(self, feeds: Mapping[str, np.ndarray], where: str = "") -> dict[str, np.ndarray]:
        return run(self.original, feeds, f"{where or self.where}: PyTorch")

    def in_onnx_runtime(self, feeds: Mapping[str, np.ndarray], where: str = "") -> dict[str, np.ndarray]:
        return run(self.exported, feeds, f"{where or self.where}: ONNX Runtime")

    def difference(self, expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], *, at: str) -> Difference:
        return difference(expected, found, self.signature, limit=self.limit, at=at)


def sides_of(original: Runs, exported: Runs, signature: Signature, samples: Samples, *, where: str) -> Sides:
    """Both sides, with the differences that the spread of the original's outputs allows; raises InputError when it fails to run."""
    outputs = run(original, samples.rows(ROWS_CHECKED[-1]), f"{where}: PyTorch")
    limit = None if signature.score is None else score_limit(signature.scores(outputs, where=where))
    return Sides(original=original, exported=exported, signature=signature, limit=limit, where=where)


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """Checks that were passed, and sentences about what a user should know although they were."""

    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()


def verify(sides: Sides, samples: Samples) -> Verified:
    """Compare the exported graph with PyTorch at 1, 2, 7 and 256 rows.

    Also: both give the same twice, and ids outside their tables are refused by the graph. Raises InputError naming the rows, the output,
    the difference and the input that shows it.
    """
    checks, warnings = [_deterministic(sides, samples)], list[str]()
    for rows in ROWS_CHECKED:
        found, warning = _at_rows(sides, samples.rows(rows))
        checks.append(Check(name=f"ONNX Runtime agrees with PyTorch at {_rows(rows)}", passed=True, detail=f"{samples.note}: {found.text}"))
        warnings.extend([warning] if warning else [])
    return Verified(checks=(*checks, *_ids(sides, samples)), warnings=(*warnings, *_doubts(sides, samples)))


def verify_sizes(sides: Sides, resized: Sequence[tuple[str, dict[str, np.ndarray]]]) -> tuple[tuple[Check, ...], InputError | None]:
    """Compare both sides on feeds with another size of a dimension: a Check per dimension, up to the first that disagrees, and how."""
    checks: list[Check] = []
    for dim, feeds in resized:
        size = next(feeds[spec.name].shape[spec.shape.index(dim)] for spec in sides.signature.inputs if dim in spec.shape)
        at = f"{sides.where}: at {dim} = {size}"
        try:
            gap = sides.difference(sides.in_pytorch(feeds, at), sides.in_onnx_runtime(feeds, at), at=at)
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


def _at_rows(sides: Sides, feeds: dict[str, np.ndarray]) -> tuple[Difference, str | None]:
    """The difference at this number of rows, and a warning where PyTorch itself does not run on a single one."""
    rows = len(next(iter(feeds.values())))
    at = f"{sides.where}: at {_rows(rows)}"
    warning = None
    try:
        expected = sides.in_pytorch(feeds)
    except InputError as error:
        if rows != 1:
            raise
        expected = _first_of_two(sides, feeds)
        warning = f"PyTorch itself {error.problem}; the exported graph runs, and gives this row the score it has among two rows"
    found = sides.in_onnx_runtime(feeds)
    try:
        gap = sides.difference(expected, found, at=at)
    except InputError:
        if rows == 1 and warning is None:
            _refuse_another_score_alone(sides, found, feeds)
        raise
    if sides.signature.score is not None:
        _one_score_per_row(expected, sides.signature, rows, f"{at}: PyTorch")
    return gap, warning


def _first_of_two(sides: Sides, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What PyTorch says of a single row that it is given twice."""
    twice = sides.in_pytorch({name: np.repeat(array, 2, axis=0) for name, array in feeds.items()})
    return {spec.name: twice[spec.name][:1] if twice[spec.name].ndim else twice[spec.name] for spec in sides.signature.outputs}


def _refuse_another_score_alone(sides: Sides, found: Mapping[str, np.ndarray], feeds: dict[str, np.ndarray]) -> None:
    """Raise InputError when it is PyTorch that scores a single row otherwise than the same row among two, where the graph does not."""
    try:
        sides.difference(_first_of_two(sides, feeds), found, at=sides.where)
    except InputError:
        return
    problem = f"gives a single row another output than the same row among two, on {shown(feeds)}"
    fix = "look in forward for a squeeze() that drops the row too, and name its axis: squeeze(-1)"
    raise InputError(f"{sides.where}: PyTorch", problem, fix=fix) from None


def _one_score_per_row(outputs: Mapping[str, np.ndarray], signature: Signature, rows: int, where: str) -> None:
    scores = signature.scores(outputs, where=where)
    if scores.size != rows or not np.isfinite(scores).all():
        found = f"{scores.size}" if scores.size != rows else "NaN or infinity"
        ranked = signature.score.text if signature.score is not None else signature.outputs[0].name
        raise InputError.mismatch(f"{where}: output '{ranked}'", expected=f"{rows} finite scores, one per row", found=found)


_RANDOM = "take the random numbers out of forward (is a dropout applied outside training?)"


def _deterministic(sides: Sides, samples: Samples) -> Check:
    feeds = samples.rows(7)
    for name, answer in (("PyTorch", sides.in_pytorch), ("ONNX Runtime", sides.in_onnx_runtime)):
        first, second = answer(feeds), answer(feeds)
        for spec in sides.signature.outputs:
            if not _same(first[spec.name], second[spec.name]):
                at = f"{sides.where}: {name}: output '{spec.name}'"
                raise InputError(at, "differs between two runs on the same input", fix=_RANDOM)
    return Check(name="same input, same output", passed=True, detail="PyTorch and ONNX Runtime, twice on 7 rows, bit for bit")


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def _doubts(sides: Sides, samples: Samples) -> tuple[str, ...]:
    """What is odd about the scores of the original itself."""
    if sides.signature.score is None:
        return ()
    scores = sides.signature.scores(sides.in_pytorch(samples.rows(ROWS_CHECKED[-1])), where=sides.where)
    if np.ptp(scores) == 0:
        return (f"PyTorch gives every row the same score on {samples.note}: that both agree says little",)
    fewer = sides.signature.scores(sides.in_pytorch(samples.rows(7)), where=sides.where)
    noise = min(sides.limit or ABSOLUTE_TOLERANCE, ABSOLUTE_TOLERANCE) + ROUNDING * float(np.abs(scores).max())
    alone = bool((np.abs(scores[: len(fewer)] - fewer) <= noise).all())
    return () if alone else ("a row's score depends on the other rows of its request: scoring candidates in parts gives other scores",)


def _ids(sides: Sides, samples: Samples) -> tuple[Check, ...]:
    """An id outside its table has to fail in the graph as it does in PyTorch; where PyTorch takes it, both have to agree."""
    unnoticed, tried = [], 0
    for spec in sides.signature.inputs:
        for place, value in _outside(spec):
            feeds = {name: array.copy() for name, array in samples.rows(2).items()}
            feeds[spec.name][(0, *place)] = value
            expected, found = _attempt(sides.original, feeds), _attempt(sides.exported, feeds)
            tried += 1
            if expected is not None and found is not None:
                sides.difference(expected, found, at=f"{sides.where}: with the id {value} in '{spec.name}'")
            elif expected is not None:
                problem = f"ONNX Runtime refuses the id {value} that PyTorch takes, on {shown(feeds)}"
                fix = "map unknown ids inside forward with torch.clamp or torch.where"
                raise InputError(f"{sides.where}: input '{spec.name}'", problem, fix=fix)
            elif found is not None:
                unnoticed.append(f"{spec.name}{list(place) if any(place) else ''} = {value}")
    if not tried:
        return ()
    if not unnoticed:
        return (Check(name="ids outside their tables fail", passed=True, detail="as in PyTorch"),)
    detail = f"the graph itself takes {', '.join(unnoticed[:8])}, which PyTorch refuses"
    return (Check(name="ids outside their tables are refused by requests and the router", passed=True, detail=detail),)


def _outside(spec: InputSpec) -> list[tuple[tuple[int, ...], int]]:
    """Where to put an id that no table has, and which: just behind the last row, and just before the first."""
    first = (0,) * (len(spec.shape) - 1)
    tables = {first: spec.rows_of_table} if spec.rows_of_table is not None else {}
    for column in spec.id_columns:
        if column.column is not None and column.rows_of_table is not None:
            tables[(*first[:-1], column.column)] = column.rows_of_table
    limits = np.iinfo(spec.dtype) if spec.dtype.lstrip("u").startswith("int") else None
    fits = [value for value in (-1,) if limits is None or limits.min <= value]
    return [(place, value) for place, rows in tables.items() for value in (rows, *fits) if limits is None or value <= limits.max]


def _attempt(side: Runs, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    try:
        return side.run(feeds)
    except Exception:  # a refusal is what is asked for, and each runtime raises its own types
        return None


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
