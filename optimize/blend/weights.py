"""Two models of one structure, and their weights between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ...core.errors import RefusedStep

_QUANTIZED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"),
    *("QLinearMatMul", "QGemm", "MatMulNBits", "GatherBlockQuantized", "QLinearConv", "ConvInteger"),
}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16}
_PLAIN = "blend the plain exports, and apply other steps to the result"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A weight of the treatment (an initializer of its model) and the base's counterpart; `rows` are in both tables, None for no table."""

    value: ir.Value
    treatment: np.ndarray
    base: np.ndarray
    rows: int | None


def match(base: ir.Model, treatment: ir.Model, where: str) -> list[Pair]:
    """Weights that differ, found by walking both graphs at once, so that names do not matter.

    Raises RefusedStep, naming the first difference, unless the graphs have the same operators with the same settings in the same order, and
    weights of the same shapes; tables that only Gather reads along their rows may have different numbers of them (row = id).
    """
    for side, model in (("base", base), ("model", treatment)):
        quantized = next((n for n in model.graph.all_nodes() if n.op_type in _QUANTIZED), None)
        if quantized is not None:
            raise RefusedStep(where, f"the {side} is quantized (node '{quantized.name}', {quantized.op_type})", fix=_PLAIN)
    seen: dict[ir.Value, ir.Value] = {}
    _inputs(base.graph, treatment.graph, seen, where)
    _nodes(base.graph, treatment.graph, seen, where)
    pairs = list(_pairs(seen, where))
    if not pairs:
        raise RefusedStep(where, "both models have the same weights", fix="nothing to blend; check which file v1.1 was exported from")
    return pairs


def mix(pairs: list[Pair], alpha: float) -> None:
    """Write (1 - alpha) base + alpha treatment into the treatment's initializers; rows that only its table has stay as they are.

    Computed in float64, so that alpha 0 and 1 give the weights themselves.
    """
    for pair in pairs:
        both = slice(None) if pair.rows is None else slice(pair.rows)
        old, new = (array.astype(np.float64) if not array.ndim else array[both].astype(np.float64) for array in (pair.base, pair.treatment))
        mixed = ((1 - alpha) * old + alpha * new).astype(pair.treatment.dtype)
        whole = mixed if pair.rows is None else np.concatenate([mixed, pair.treatment[pair.rows :]])
        pair.value.const_value = ir.tensor(whole, name=pair.value.name)


def _inputs(base: ir.Graph, treatment: ir.Graph, seen: dict[ir.Value, ir.Value], where: str) -> None:
    a, b = ([v.name for v in g.inputs if v.name not in g.initializers] for g in (base, treatment))
    if a != b:
        raise RefusedStep(where, f"the base takes {', '.join(map(str, a))}, the model {', '.join(map(str, b))}", fix=_PLAIN)
    seen.update(zip([v for v in treatment.inputs if v.name in a], [v for v in base.inputs if v.name in a], strict=True))


def _nodes(base: ir.Graph, treatment: ir.Graph, seen: dict[ir.Value, ir.Value], where: str) -> None:
    left, right = list(base), list(treatment)
    for a, b in zip(left, right, strict=False):
        _same_node(a, b, seen, where)
        for x, y in zip(b.outputs, a.outputs, strict=True):
            seen[x] = y
    if len(left) != len(right):
        longer, whose = (left, "base") if len(left) > len(right) else (right, "model")
        extra = longer[min(len(left), len(right))]
        raise RefusedStep(where, f"only the {whose} has node '{extra.name}' ({extra.op_type}) and what follows it", fix=_PLAIN)
    ends = [(seen.get(y), x) for x, y in zip(base.outputs, treatment.outputs, strict=False)]
    if len(base.outputs) != len(treatment.outputs) or any(a is not b for a, b in ends):
        raise RefusedStep(where, "the models give different outputs", fix=_PLAIN)


def _same_node(a: ir.Node, b: ir.Node, seen: dict[ir.Value, ir.Value], where: str) -> None:
    at = f"node '{b.name}'"
    if (a.domain, a.op_type, len(a.inputs), len(a.outputs)) != (b.domain, b.op_type, len(b.inputs), len(b.outputs)):
        raise RefusedStep(where, f"{at} is a {b.op_type}, the base has {a.op_type} ('{a.name}') in its place", fix=_PLAIN)
    for name in {*a.attributes, *b.attributes}:
        mine, other = b.attributes.get(name), a.attributes.get(name)
        if mine is None or other is None:
            raise RefusedStep(where, f"{at}: only one model sets {name}", fix=_PLAIN)
        if mine.type is ir.AttributeType.GRAPH and other.type is ir.AttributeType.GRAPH:
            _nodes(other.as_graph(), mine.as_graph(), seen, where)
        elif not _same_setting(mine, other):
            raise RefusedStep(where, f"{at}: {name} differs between the models", fix=_PLAIN)
    for position, (x, y) in enumerate(zip(b.inputs, a.inputs, strict=True)):
        if (x is None) != (y is None) or (x is not None and seen.setdefault(x, y) is not y):  # type: ignore[arg-type]  # y is no None then
            raise RefusedStep(where, f"{at}: input {position} comes from elsewhere than in the base", fix=_PLAIN)


def _same_setting(mine: ir.Attr, other: ir.Attr) -> bool:
    if mine.type is ir.AttributeType.TENSOR and other.type is ir.AttributeType.TENSOR:
        return np.array_equal(mine.as_tensor().numpy(), other.as_tensor().numpy())
    return bool(mine.type is other.type and mine.value == other.value)


def _pairs(seen: dict[ir.Value, ir.Value], where: str) -> Iterator[Pair]:
    for value, other in seen.items():
        mine, base = value.const_value, other.const_value
        if (mine is None) != (base is None):
            raise RefusedStep(where, f"'{value.name}' is a weight in one model and computed in the other", fix=_PLAIN)
        if mine is None or base is None or not value.is_initializer():
            continue
        a, b = base.numpy(), mine.numpy()
        if mine.dtype is not base.dtype:
            raise RefusedStep(where, f"weight '{value.name}' is {mine.dtype}, the base's {base.dtype}", fix=_PLAIN)
        if a.shape == b.shape and np.array_equal(a, b):
            continue
        rows = None
        if a.shape != b.shape:
            if not (_is_table(value) and a.ndim == b.ndim and a.shape[1:] == b.shape[1:]):
                raise RefusedStep(where, f"weight '{value.name}' has shape {list(b.shape)}, the base's {list(a.shape)}", fix=_PLAIN)
            rows = min(len(a), len(b))
        if mine.dtype not in _FLOATS:
            problem = f"constant '{value.name}' ({mine.dtype}) differs between the models, and only weights can be blended"
            raise RefusedStep(where, problem, fix=_PLAIN)
        yield Pair(value=value, treatment=b, base=a, rows=rows)


def _is_table(value: ir.Value) -> bool:
    """Whether only Gather along the first axis reads it, so that a row is an id."""
    uses = list(value.uses())
    return bool(uses) and all(use.node.op_type == "Gather" and use.idx == 0 and _axis(use.node) == 0 for use in uses)


def _axis(node: ir.Node) -> int:
    axis = node.attributes.get("axis")
    return 0 if axis is None else axis.as_int()
