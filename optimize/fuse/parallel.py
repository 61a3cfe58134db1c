"""Linear layers that read the same input become one: experts and gates, query, key and value."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from .dims import dims_of
from .edit import bypass, constant, only_reader
from .linear import Linear, linear_of, set_linear

# Functions of one element that a Gemm takes in, so that they are done once for all layers.
_ACTIVATIONS = {"Relu", "Sigmoid", "Tanh"}


def join_linears(model: ir.Model) -> int:
    """One product with the matrices side by side, and a Split; returns how many nodes went.

    Layers of another kind (Gemm or MatMul), dtype or activation behind them make groups of their own.
    """
    gone = 0
    groups: dict[object, list[Linear]] = defaultdict(list)
    for node in model.graph:
        layer = linear_of(node)
        if layer is None or layer.node.outputs[0].is_graph_output() or layer.weight.dtype not in (np.float32, np.float64):
            continue
        groups[node.inputs[0], node.op_type, layer.weight.dtype, len(dims_of(node.inputs[0]) or ()), _activation(node)].append(layer)
    for layers in groups.values():
        rank = len(dims_of(layers[0].node.inputs[0]) or ())
        # Two layers and a Split are no fewer nodes than two layers were.
        if len(layers) > 2 and rank > 0:
            gone += _join(layers, rank, model)
    return gone


def _activation(node: ir.Node) -> str:
    reader = only_reader(node.outputs[0])
    return reader.op_type if reader is not None and reader.op_type in _ACTIVATIONS and not reader.outputs[0].is_graph_output() else ""


def _join(layers: list[Linear], rank: int, model: ir.Model) -> int:
    first, activation = layers[0].node, _activation(layers[0].node)
    ends = [only_reader(layer.node.outputs[0]) if activation else layer.node for layer in layers]
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    biased = any(layer.bias is not None for layer in layers)
    none = [np.zeros(layer.outputs, layer.weight.dtype) for layer in layers]
    bias = (
        np.concatenate([zeros if layer.bias is None else layer.bias for layer, zeros in zip(layers, none, strict=True)]) if biased else None
    )
    joined = ir.node(first.op_type, list(first.inputs))
    nodes = [joined]
    if activation:
        nodes.append(ir.node(activation, [joined.outputs[0]]))
    widths = constant(model, np.asarray([layer.outputs for layer in layers], np.int64), "widths")
    nodes.append(ir.node("Split", [nodes[-1].outputs[0], widths], attributes={"axis": rank - 1}, num_outputs=len(layers)))
    model.graph.insert_before(first, nodes)
    set_linear(model, Linear(node=joined, weight=layers[0].weight, bias=None), weight, bias)
    for end, part in zip(ends, nodes[-1].outputs, strict=True):
        if end is None:
            raise AssertionError("an activation is the one reader of its layer")
        bypass(end, part)
    before = len(layers) * (2 if activation else 1)
    return before - len(nodes)
