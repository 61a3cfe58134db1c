"""SmoothQuant: columns that a linear layer reads are evened out, and its weights take up the difference; exact in float."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import SmoothActivations
from ..context import StepContext
from ..convert.onnx_graph import save
from .calibration import calibration_feeds
from .linears import Place, array_of, array_shape, drop_unused, inputs_of, is_linear, matrix_of, prepared, replace, set_matrix
from .observe import watch

# They commute with a division of each column by a positive number.
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "Identity"})
_LARGEST_EXPONENT = 12


class Fold(msgspec.Struct, frozen=True):
    """A constant whose entries along `axis` are columns `start` and following of what a linear layer reads."""

    place: Place
    axis: int
    start: int
    width: int


def smooth_activations(step: SmoothActivations, context: StepContext) -> StepRecord:
    """Fold the scales into the linear layer, LayerNormalization or embedding table before; nothing is added at run time.

    Scales are powers of two, so float results are the same to the last bit. Columns that cannot be folded keep scale 1. Raises RefusedStep
    without enough real requests, and when there is nothing to fold into or to even out; UnknownName for an excluded node.
    """
    where = f"smooth {context.where}"
    model = prepared(context.source, where)
    ShapeInferencePass()(model)
    linear = [node for node in model.graph if is_linear(node) and matrix_of(node).ndim == 2]
    names = {node.name or "": node for node in linear}
    for name in step.exclude:
        if name not in names:
            raise UnknownName(where, "node", name, names)
    groups: dict[ir.Value, list[ir.Node]] = {}
    for node in linear:
        if node.inputs[0] is not None:
            groups.setdefault(node.inputs[0], []).append(node)
    found = {value: folds for value, readers in groups.items() if (folds := _folds(value, readers, step.exclude))}
    if not found:
        problem = "no linear layer reads, alone, what another linear layer (through Relu at most), a LayerNormalization or a table wrote"
        raise RefusedStep(where, problem, fix="leave this step out: there is nothing to fold the scales into")
    calibration_feeds(context, where)
    largest, requests = _largest(model, [value.name or "" for value in found], context)
    changed, columns, flattest = [], 0, 1.0
    for value, folds in found.items():
        readers = groups[value]
        scales = _scales(largest[value.name or ""], readers, folds, step.alpha)
        if (scales == 1).all():
            continue
        before, after = largest[value.name or ""], largest[value.name or ""] / scales
        flattest = max(flattest, _spread(before) / _spread(after))
        for fold in folds:
            _divide(model, fold, scales[fold.start : fold.start + fold.width])
        for node in readers:
            set_matrix(model, node, matrix_of(node) * scales[:, None])
        changed += [node.name or "" for node in readers]
        columns += int((scales != 1).sum())
    if not changed:
        raise RefusedStep(where, "the columns that linear layers read are even already", fix="leave this step out")
    drop_unused(model)
    save(model, context.target)
    return StepRecord(
        kind="smooth_activations",
        settings={"alpha": step.alpha, "exclude": ",".join(step.exclude)},
        summary=(
            f"{columns} columns of what {len(changed)} of {len(linear)} MatMul/Gemm read ({', '.join(changed)}) divided by powers of two,"
            f" folded into what writes them; largest over median column down by up to {flattest:.2g} times, from {requests} requests"
        ),
        numbers={"nodes_smoothed": float(len(changed)), "columns_scaled": float(columns), "calibration_requests": float(requests)},
    )


def _largest(model: ir.Model, names: list[str], context: StepContext) -> tuple[dict[str, np.ndarray], int]:
    """Largest |value| per column of these tensors over the calibration requests, float64 `[columns]` each, and how many those were."""
    found: dict[str, np.ndarray] = {}
    requests = 0
    for seen in watch(model, names, context):
        requests += 1
        for name in names:
            columns = np.abs(np.asarray(seen[name], dtype=np.float64)).reshape(-1, seen[name].shape[-1]).max(axis=0, initial=0.0)
            found[name] = np.maximum(found[name], columns) if name in found else columns
    return found, requests


def _folds(value: ir.Value, readers: list[ir.Node], exclude: tuple[str, ...]) -> list[Fold]:
    """Constants that the scales of `value`'s columns can be folded into; none when anything but `readers` reads it."""
    if any((node.name or "") in exclude for node in readers) or not _only(value, len(readers)):
        return []
    # A reader that multiplies the value by something else than a weight has it on its right side.
    if any(use.idx != 0 or use.node not in readers for use in value.uses()):
        return []
    return _behind(value, 0, inputs_of(readers[0]))


def _only(value: ir.Value, uses: int) -> bool:
    return not value.is_graph_output() and len(list(value.uses())) == uses


def _behind(value: ir.Value, start: int, width: int) -> list[Fold]:  # noqa: PLR0911 - one return per kind of writer
    """Where columns `start` to `start + width` come from, each constant in question written by nothing else and read by nothing else."""
    node = value.producer()
    if node is None or node.domain not in {"", "ai.onnx"} or value is not node.outputs[0]:
        return []
    source = node.inputs[0] if node.inputs else None
    match node.op_type:
        case op if op in _HOMOGENEOUS and source is not None and _only(source, 1):
            return _behind(source, start, width)
        case "Concat" if _joins_columns(node):
            return _concatenated(node, start, width)
        case "Add":
            return _biased(node, start, width)
        case "Gemm" | "MatMul" if is_linear(node) and matrix_of(node).ndim == 2:
            return _linear_folds(node, start, width)
        case "LayerNormalization":
            return _norm_folds(node, start, width)
        case "Gather":
            return _table_folds(node, start, width)
    return []


def _joins_columns(node: ir.Node) -> bool:
    """Whether a Concat's axis is the last one."""
    axis, shape = node.attributes.get_int("axis", 0), node.outputs[0].shape
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _concatenated(node: ir.Node, start: int, width: int) -> list[Fold]:
    """Folds of each part whose width is known; those behind a part of unknown width are lost."""
    found: list[Fold] = []
    offset = start
    for part in node.inputs:
        size = _columns(part) if part is not None else None
        if part is None or size is None:
            return found
        if _only(part, 1):
            found += _behind(part, offset, size)
        offset += size
    return found if offset == start + width else []


def _columns(value: ir.Value) -> int | None:
    """Number of columns of a value, by the constant that made it or by its shape."""
    node = value.producer()
    if node is not None and node.op_type == "Gather" and node.inputs[0] is not None and node.inputs[0].const_value is not None:
        return array_shape(node.inputs[0])[-1]
    if node is not None and is_linear(node):
        return int(matrix_of(node).shape[-1])
    if node is not None and node.op_type in _HOMOGENEOUS and node.inputs[0] is not None:
        return _columns(node.inputs[0])
    size = value.shape[-1] if value.shape is not None and len(value.shape) else None
    return size if isinstance(size, int) else None


def _biased(node: ir.Node, start: int, width: int) -> list[Fold]:
    """The bias behind a MatMul and that MatMul's weight: both or none."""
    for position in (0, 1):
        bias, product = node.inputs[position], node.inputs[1 - position]
        if bias is None or product is None or bias.const_value is None or list(bias.const_value.shape) != [width]:
            continue
        behind = _behind(product, start, width) if _only(product, 1) else []
        return [*behind, Fold(Place(node, position), -1, start, width)] if behind else []
    return []


def _linear_folds(node: ir.Node, start: int, width: int) -> list[Fold]:
    transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    folds = [Fold(Place(node, 1), 0 if transposed else 1, start, width)]
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        if array_of(node.inputs[2]).shape[-1:] != (width,):
            return []
        folds.append(Fold(Place(node, 2), -1, start, width))
    return folds


def _norm_folds(node: ir.Node, start: int, width: int) -> list[Fold]:
    """Scale and bias of a LayerNormalization over the last axis, which are what it multiplies by and adds last."""
    if node.attributes.get_int("axis", -1) != -1 or any(value is not None and value.const_value is None for value in node.inputs[1:]):
        return []
    places = [Place(node, position) for position in range(1, len(node.inputs)) if node.inputs[position] is not None]
    return [Fold(place, -1, start, width) for place in places] if all(place.array.shape == (width,) for place in places) else []


def _table_folds(node: ir.Node, start: int, width: int) -> list[Fold]:
    """The columns of an embedding table that only this lookup reads."""
    table = node.inputs[0]
    if table is None or table.const_value is None or node.attributes.get_int("axis", 0) != 0:
        return []
    single = len(list(table.uses())) == 1 and not table.is_graph_output() and len(table.const_value.shape) == 2
    return [Fold(Place(node, 0), 1, start, width)] if single and array_of(table).dtype == np.float32 else []


def _scales(largest: np.ndarray, readers: list[ir.Node], folds: list[Fold], alpha: float) -> np.ndarray:
    """A power of two per column, 1 where nothing folds: near max|X|^alpha / max|W|^(1 - alpha) (SmoothQuant, formula 4)."""
    weights = np.max([np.abs(matrix_of(node)).max(axis=1) for node in readers], axis=0)
    foldable = np.zeros(len(largest), dtype=bool)
    for fold in folds:
        foldable[fold.start : fold.start + fold.width] = True
    used = foldable & (largest > 0) & (weights > 0)
    scales = np.ones(len(largest))
    if used.any():
        exponent = alpha * np.log2(largest[used]) - (1 - alpha) * np.log2(weights[used])
        # Only differences between columns matter; where all fold, the median column stays as it is.
        exponent -= np.median(exponent)
        scales[used] = np.exp2(np.clip(np.rint(exponent), -_LARGEST_EXPONENT, _LARGEST_EXPONENT))
    return scales


def _spread(largest: np.ndarray) -> float:
    """The largest column over the median one: how much of the one range the usual column leaves unused."""
    median = float(np.median(largest[largest > 0])) if (largest > 0).any() else 0.0
    return float(largest.max()) / median if median > 0 else math.inf


def _divide(model: ir.Model, fold: Fold, scales: np.ndarray) -> None:
    """Divide the constant's entries along the fold's axis; other nodes that read it keep the old one."""
    array = fold.place.array
    shape = [1] * array.ndim
    shape[fold.axis] = -1
    replace(model, fold.place, array / scales.reshape(shape))
