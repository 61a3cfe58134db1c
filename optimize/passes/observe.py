"""What flows through a model on calibration requests, request by request."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.errors import InputError, RefusedStep
from ...runtime.session import SessionSettings
from ..context import StepContext
from ..convert.onnx_graph import save
from .least_squares import Moments
from .linears import addend_of, has_weight, inputs_of, matrix_of, offset_of, outputs_of

# Sums over rows settle long before this many; a request of a sequence model alone has thousands.
REQUESTS = 1024
ROWS_PER_REQUEST = 256
_HELD_OUT = 4
_RANK_SCALE = 3


class Learned(msgspec.Struct):
    """Sums for one linear node (one matrix of it, where it has a batch of them): from rows to fit on, and from others to judge by."""

    fit: Moments
    held_out: Moments

    @property
    def both(self) -> Moments:
        return self.fit.plus(self.held_out)


def learn(before: ir.Model, now: ir.Model, names: Sequence[str], context: StepContext) -> dict[str, list[Learned]]:
    """Sums for the linear nodes that compute the tensors `names`, one per matrix of each.

    Inputs are what the node reads in `now`, outputs what the node of the same name gives in `before`, without what it adds itself: so that
    a fit also makes up for what was changed upstream. A candidate counts by how high `before` ranks it, `1 / (1 + rank / 3)`:
    what users see is the top. Every fourth request is held out; of a request with many rows (those of a history for each candidate)
    evenly spaced ones are taken. Nodes whose own outputs were cut since then are fitted to what they give now. Raises RefusedStep where a
    tensor holds NaN or infinity.
    """
    new = _by_output(now, names)
    if any(outputs_of(node) != outputs_of(new[name]) for name, node in _by_output(before, names).items()):
        before = now
    old = _by_output(before, names)
    reads = {name: _name(new[name].inputs[0]) for name in names}
    offsets = {name: offset_of(old[name]) for name in names}
    found: dict[str, list[Learned]] = {}
    for name in names:
        shape = matrix_of(new[name]).shape
        size = (inputs_of(new[name]), outputs_of(new[name]))
        copies = shape[0] if len(shape) == 3 else 1
        found[name] = [Learned(Moments.empty(*size), Moments.empty(*size)) for _ in range(copies)]
    added = {name: _name(value) for name in names if (value := addend_of(old[name])) is not None}
    score = context.signature.score
    targets = watch(before, [*names, *added.values(), *([] if score is None else [score.output])], context)
    inputs = watch(now, list(reads.values()), context)
    for number, (wanted, seen) in enumerate(zip(targets, inputs, strict=True)):
        weights = None if score is None else _by_rank(context.signature.scores(wanted, where=context.where))
        for name in names:
            batch = found[name]
            for place, learned in enumerate(batch):
                x = _rows(seen[reads[name]], place, len(batch), wanted[name])
                y = _rows(wanted[name], place, len(batch), wanted[name]) - offsets[name]
                if name in added:
                    y = y - wanted[added[name]]
                step = max(1, len(x) // ROWS_PER_REQUEST)
                part = learned.held_out if number % _HELD_OUT == _HELD_OUT - 1 else learned.fit
                weight = None
                if weights is not None and len(weights) and len(seen[reads[name]]) == len(weights):
                    weight = np.repeat(weights, len(x) // len(weights))[::step]
                part.add(x[::step], y[::step], weight)
    _require_finite(found, context.where)
    return found


def score_error(before: ir.Model, now: ir.Model, context: StepContext) -> dict[str, float]:
    """`score_error`: how far the scores moved within held-out requests, relative to how far they are apart there; empty without a score.

    Both are root mean squares around the request's mean, as what is added to all candidates of a request changes no ranking.
    """
    score = context.signature.score
    if score is None:
        return {}
    moved = apart = 0.0
    for number, pair in enumerate(zip(watch(before, [score.output], context), watch(now, [score.output], context), strict=True)):
        if number % _HELD_OUT == _HELD_OUT - 1:
            old, new = (context.signature.scores(outputs, where=context.where) for outputs in pair)
            moved += float(((new - old - (new - old).mean()) ** 2).sum()) if len(old) else 0.0
            apart += float(((old - old.mean()) ** 2).sum()) if len(old) else 0.0
    return {"score_error": math.sqrt(moved / apart)} if apart > 0 else {}


def watch(model: ir.Model, names: Sequence[str], context: StepContext) -> Iterator[dict[str, np.ndarray]]:
    """The inputs and the tensors `names` of a model for every calibration request, in the signature's layout.

    Work that they do not need is not done. Raises InputError when the model fails on a request.
    """
    import onnxruntime as ort  # noqa: PLC0415 - takes a second

    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - the same options as a session

    wanted = list(dict.fromkeys(names))
    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    computed = [name for name in wanted if name in values]
    if not computed:
        yield from context.feeds(REQUESTS)
        return
    copy.graph.outputs[:] = [values[name] for name in computed]
    with tempfile.TemporaryDirectory(prefix="liftgate-") as folder:
        path = Path(folder) / "watched.onnx"
        save(copy, path)
        session = ort.InferenceSession(path, session_options(SessionSettings()), providers=["CPUExecutionProvider"])
    for number, feeds in enumerate(context.feeds(REQUESTS)):
        try:
            found = session.run(computed, feeds)
        except Exception as error:  # ONNX Runtime raises its own types, which share no public base class
            reason = str(error).splitlines()[0][:200]
            fix = "check its values: ids inside their tables, as many candidates as the model takes"
            raise InputError(context.where, f"fails on calibration request {number} ({reason})", fix=fix) from error
        yield {**feeds, **dict(zip(computed, found, strict=True))}


def _by_rank(scores: np.ndarray) -> np.ndarray:
    """Weights float64 `[candidates]` with a mean of 1: a third as much at the seventh place as at the first."""
    weights = np.empty(len(scores))
    weights[np.argsort(-scores, kind="stable")] = 1 / (1 + np.arange(len(scores)) / _RANK_SCALE)
    return weights / weights.mean() if len(weights) else weights


def _require_finite(found: dict[str, list[Learned]], where: str) -> None:
    for name, batch in found.items():
        if not all(np.isfinite(one.both.gram).all() and np.isfinite(one.both.square).all() for one in batch):
            raise RefusedStep(where, f"'{name}' computes or reads NaN or infinity on calibration requests", fix="exclude its layer")


def _rows(array: np.ndarray, place: int, copies: int, result: np.ndarray) -> np.ndarray:
    """An array as rows `[rows, columns]`; of a batch of matrices those that the one at `place` reads or gives."""
    if copies > 1:
        lead = np.broadcast_shapes(array.shape[:-2], result.shape[:-2])
        array = np.broadcast_to(array, (*lead, *array.shape[-2:]))[..., place, :, :]
    return array.reshape(-1, array.shape[-1])


def _by_output(model: ir.Model, names: Sequence[str]) -> dict[str, ir.Node]:
    found = {value.name: node for node in model.graph if has_weight(node) for value in node.outputs}
    return {name: found[name] for name in names}


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else "") or ""
