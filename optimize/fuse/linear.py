"""Linear layers of a graph: a MatMul or Gemm with a constant matrix, seen as `x @ weight + bias`."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from .edit import const, constant, given


class Linear(msgspec.Struct, kw_only=True):
    """`weight` is [inputs, outputs] and `bias` [outputs] or None, in the layer's own dtype; a Gemm's alpha and beta are multiplied in.

    `added` is what a Gemm adds instead of a constant bias, as `hoist_request` writes it: what the request gives.
    """

    node: ir.Node
    weight: np.ndarray
    bias: np.ndarray | None
    added: ir.Value | None = None

    @property
    def outputs(self) -> int:
        return int(self.weight.shape[1])


def linear_of(node: ir.Node | None, *, computed_bias: bool = False) -> Linear | None:
    """`node` as a linear layer, None when it is none; one whose bias is computed only where that is asked for."""
    if node is None or node.domain not in {"", "ai.onnx"} or node.op_type not in {"MatMul", "Gemm"}:
        return None
    weight = const(node.inputs[1])
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or const(node.inputs[0]) is not None:
        return None
    if node.op_type == "MatMul":
        return Linear(node=node, weight=weight, bias=None)
    return None if node.attributes.get_int("transA", 0) else _gemm(node, weight, computed_bias)


def _gemm(node: ir.Node, stored: np.ndarray, computed_bias: bool) -> Linear | None:
    turned = stored.T if node.attributes.get_int("transB", 0) else stored
    alpha, beta = (np.asarray(node.attributes.get_float(name, 1.0), stored.dtype) for name in ("alpha", "beta"))
    weight = turned if alpha == 1 else turned * alpha
    added = given(node, 2)
    bias = const(added)
    if added is None:
        return Linear(node=node, weight=weight, bias=None)
    if bias is None:
        return Linear(node=node, weight=weight, bias=None, added=added) if computed_bias and beta == 1 else None
    if bias.size not in {1, weight.shape[1]} or (bias.ndim > 1 and bias.shape[0] != 1):
        return None
    return Linear(node=node, weight=weight, bias=np.broadcast_to(bias.reshape(-1) * beta, weight.shape[1:]))


def set_linear(model: ir.Model, layer: Linear, weight: np.ndarray, bias: np.ndarray | None) -> None:
    """Give a layer other numbers; a bias makes a Gemm of a MatMul, whose input then has to have two axes. Constants are new ones."""
    node, dtype = layer.node, layer.weight.dtype
    base = (node.inputs[1].name if node.inputs[1] is not None else None) or "weight"
    inputs = [node.inputs[0], constant(model, weight.astype(dtype), f"{base}_fused")]
    if bias is not None:
        inputs.append(constant(model, bias.astype(dtype), f"{base}_bias"))
    _turn(node, "Gemm" if bias is not None or node.op_type == "Gemm" else "MatMul", inputs)


def _turn(node: ir.Node, op_type: str, inputs: list[ir.Value | None]) -> None:
    """Make `node` another operator in place, so that whoever holds it keeps it."""
    node.op_type = op_type
    for name in list(node.attributes):
        node.attributes.pop(name)
    node.resize_inputs(len(inputs))
    for position, value in enumerate(inputs):
        node.replace_input_with(position, value)
