"""Linear layers on sequences as Gemm, which adds the bias and the activation itself, but only takes tensors of two axes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import dims_of, reshape_target, same
from .edit import const, constant, graph_of, insert, only_reader, producer, replace
from .linear import Linear, linear_of, set_linear
from .operators import is_elementwise


def flatten_linears(model: ir.Model) -> int:
    """`MatMul(x, W) + b` on `[rows, length, inputs]` as a Gemm on `[rows * length, inputs]`; returns how many were found."""
    changed = 0
    for node in list(model.graph):
        layer = linear_of(node) if node.op_type == "MatMul" else None
        added = only_reader(node.outputs[0]) if layer is not None else None
        if layer is None or added is None or added.op_type != "Add" or added.graph is not model.graph:
            continue
        value, bias = node.inputs[0], _bias(added, node, layer)
        target = reshape_target(dims_of(added.outputs[0]))
        if value is None or bias is None or target is None or len(dims_of(value) or ()) < 3:
            continue
        flat = insert(added, "Reshape", [value, _shape(model, [-1, layer.weight.shape[0]])])
        product = ir.node("Gemm", [flat, node.inputs[1]], name=node.name)
        graph_of(added).insert_before(added, product)
        set_linear(model, Linear(node=product, weight=layer.weight, bias=None), layer.weight, bias)
        replace(added, "Reshape", [product.outputs[0], _shape(model, target)])
        changed += 1
    return changed


def sink_reshapes(model: ir.Model) -> int:
    """Let elementwise nodes work on the two axes that a Gemm gives, the reshape to more axes coming after them; returns how many moved.

    What meets it has to come from such a reshape too, or be a constant for the last axis.
    """
    moved = 0
    for node in list(model.graph):
        if not is_elementwise(node) or node.op_type == "Identity":
            continue
        sources = [_flat(value) for value in node.inputs]
        reshapes = [reshape for reshape in (producer(value, "Reshape") for value in node.inputs) if reshape is not None]
        if None in sources or not _one_shape([value for value in node.inputs if const(value) is None]):
            continue
        inner = ir.node(node.op_type, sources, attributes=dict(node.attributes), name=node.name)
        graph_of(node).insert_before(node, inner)
        replace(node, "Reshape", [inner.outputs[0], reshapes[0].inputs[1]])
        moved += 1
    return moved


def _one_shape(values: list[ir.Value | None]) -> bool:
    """Whether there is a computed operand, and where there are several, whether all have one shape, so that none is broadcast."""
    return bool(values) and (len(set(values)) == 1 or all(same(dims_of(values[0]), dims_of(value)) for value in values))


def _bias(added: ir.Node, product: ir.Node, layer: Linear) -> np.ndarray | None:
    other = added.inputs[1] if added.inputs[0] is product.outputs[0] else added.inputs[0]
    bias = const(other)
    if (
        bias is None
        or bias.dtype != layer.weight.dtype
        or bias.size not in {1, layer.outputs}
        or (bias.ndim > 1 and bias.shape[-1] != bias.size)
    ):
        return None
    return np.broadcast_to(bias.reshape(-1), (layer.outputs,))


def _flat(value: ir.Value | None) -> ir.Value | None:
    """`value` with its leading axes as one, where it is a Gemm's rows under another shape; constants along the last axis as they are."""
    numbers = const(value)
    if numbers is not None:
        return value if numbers.ndim <= 1 else None
    reshape, dims = producer(value, "Reshape"), dims_of(value)
    source = None if reshape is None else reshape.inputs[0]
    before = dims_of(source)
    fits = before is not None and dims is not None and len(before) == 2 and len(dims) > 2 and before[-1] == dims[-1]
    return source if fits else None


def _shape(model: ir.Model, sizes: list[int]) -> ir.Value:
    return constant(model, np.asarray(sizes, np.int64), "shape")
