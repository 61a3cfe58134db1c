"""Low rank: a weight becomes the product of two thin ones, where that is less work at an error that calibration requests allow."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import LowRank
from ..context import StepContext
from ..convert.onnx_graph import save
from .least_squares import Factors, Moments, factors
from .linears import (
    add_to_bias,
    bias_place,
    constant,
    drop_unused,
    has_weight,
    inputs_of,
    matrix_of,
    name_of,
    outputs_of,
    prepared,
    set_matrix,
)
from .observe import Learned, learn, score_error
from .work import Work, work_of

# A layer with less of the model's work than this is not worth another kernel call.
_WORTH = 0.01
# Two kernels instead of one cost something, too: at least this share of the layer's own work has to go.
_SAVED = 0.25
_ROWS_PER_WEIGHT = 3


class _Done(msgspec.Struct, frozen=True):
    """A layer that was factorised: its rank, and its relative output error on held-out requests."""

    name: str
    shape: tuple[int, int]
    rank: int
    error: float

    @property
    def text(self) -> str:
        return f"{self.name} {self.shape[0]} x {self.shape[1]} -> rank {self.rank} (error {self.error:.2g})"


def low_rank(step: LowRank, context: StepContext) -> StepRecord:
    """Replace W by A B with the smallest rank whose output error on held-out requests stays below `max_error`.

    The factors lose least of the layer's outputs on calibration requests, not of the weights (see `factors`). Layers are taken one after
    the other, each as the ones before left it, and the k-th of n may use the share sqrt(k/n) of `max_error`, so that errors that add in
    squares end at `max_error`. A layer stays whole where its rank would save less than a quarter of its own work, or where it has less than
    1 % of the model's. Raises RefusedStep when there are no requests, too few rows to fit on, or no layer worth it.
    """
    where = f"low_rank {context.where}"
    if not context.calibrated:
        raise RefusedStep(where, "which directions matter can only be seen on requests, and there are none", fix="add --requests FILE")
    model, original = prepared(context.source, where), prepared(context.source, where)
    before = work_of(model, context.signature)
    chosen = _layers(model, before, step, where)
    done, left = list[_Done](), list[str]()
    for number, name in enumerate(chosen, start=1):
        context.progress("factorising", number - 1, len(chosen))
        node = next(node for node in model.graph if node.outputs and node.outputs[0].name == name)
        [learned] = learn(original, model, [name], context)[name]
        result = _factorise(model, node, learned, step, step.max_error * math.sqrt(number / len(chosen)))
        if isinstance(result, _Done):
            done.append(result)
        else:
            left.append(result)
    if not done:
        fix = "allow a larger max_error, or give more requests"
        raise RefusedStep(where, f"no layer is less work as two at max_error {step.max_error:g}: {'; '.join(left)}", fix=fix)
    moved = score_error(original, model, context)
    drop_unused(model)
    save(model, context.target)
    parts = [", ".join(one.text for one in done), *(["left whole: " + "; ".join(left)] if left else [])]
    return StepRecord(
        kind="low_rank",
        settings={"max_error": step.max_error, "multiple_of": step.multiple_of, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={"layers_factorised": float(len(done)), **work_of(model, context.signature).since(before), **moved},
    )


def _layers(model: ir.Model, work: Work, step: LowRank, where: str) -> list[str]:
    """The tensors that the layers worth a try compute, in graph order."""
    linear = [node for node in model.graph if has_weight(node) and matrix_of(node).ndim == 2]
    for name in step.exclude:
        if name not in {name_of(node) for node in linear}:
            raise UnknownName(where, "layer", name, [name_of(node) for node in linear])
    found = []
    for node in linear:
        output = node.outputs[0].name or ""
        share = work.by_output.get(output, work.flops) / max(work.flops, 1)
        if name_of(node) not in step.exclude and share >= _WORTH and _largest_rank(node) >= step.multiple_of:
            found.append(output)
    if not found:
        problem = "no layer is large enough: one with at least 1 % of the work and a rank that saves a quarter of it"
        raise RefusedStep(where, problem, fix="this model has no wide layers; a smaller multiple_of may help")
    return found


def _largest_rank(node: ir.Node) -> int:
    """The largest rank that saves enough: rank (inputs + outputs) against inputs times outputs."""
    rows, columns = inputs_of(node), outputs_of(node)
    return int((1 - _SAVED) * rows * columns / (rows + columns))


def _factorise(model: ir.Model, node: ir.Node, learned: Learned, step: LowRank, bound: float) -> _Done | str:
    """Put two nodes in the place of one; or why not."""
    name, matrix = name_of(node), matrix_of(node)
    inputs, most = len(matrix), _largest_rank(node)
    if learned.fit.distinct < _ROWS_PER_WEIGHT * inputs:
        return f"{name} has {learned.fit.distinct} different rows for {inputs} inputs, {_ROWS_PER_WEIGHT * inputs} are needed"
    judged = learned.held_out if learned.held_out.rows else learned.fit
    bias = bias_place(node)
    found = factors(learned.fit, matrix, bias=bias is not None)
    ranks = list(range(step.multiple_of, most + 1, step.multiple_of))
    rank = next((rank for rank in ranks if _error(judged, found, rank) <= bound), None)
    if rank is None:
        return f"{name} {inputs} x {matrix.shape[1]} has error {_error(judged, found, ranks[-1]):.2g} at rank {ranks[-1]}, over {bound:.2g}"
    first, second, shift = factors(learned.both, matrix, bias=bias is not None).of_rank(rank)
    _split(model, node, first, second)
    if bias is not None:
        add_to_bias(model, bias, shift)
    return _Done(name, (inputs, matrix.shape[1]), rank, _error(judged, found, rank))


def _error(judged: Moments, found: Factors, rank: int) -> float:
    return judged.error(found.weights(rank), np.arange(len(found.first)))


def _split(model: ir.Model, node: ir.Node, first: np.ndarray, second: np.ndarray) -> None:
    """Give `node` the second matrix, and a MatMul with the first one before it."""
    kind = node.inputs[1]
    if kind is None or kind.const_value is None or node.graph is None:
        raise AssertionError("a linear node has a constant weight")
    base = node.outputs[0].name or "linear"
    weight = constant(model, f"{base}_directions", first.astype(kind.const_value.numpy().dtype))
    taken = {value.name for other in model.graph for value in other.outputs} | set(model.graph.initializers)
    name = next(f"{base}_low{'_' * count}" for count in range(len(taken) + 1) if f"{base}_low{'_' * count}" not in taken)
    before = ir.node("MatMul", [node.inputs[0], weight], name=f"{node.name or base}_low", outputs=[ir.Value(name=name)])
    model.graph.insert_before(node, before)
    node.replace_input_with(0, before.outputs[0])
    set_matrix(model, node, second)
