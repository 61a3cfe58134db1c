"""Linear layers, and what is between them, that sequences are flattened for: the axes are kept, so that they can be told apart."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .expands import copies_nothing, with_entries
from .facts import WORLDS, is_fixed, product
from .linear import layer_of
from .rewriting import Rewriting


def unflatten(node: ir.Node, work: Rewriting) -> bool:
    """Reshape, Gemm, Reshape back: the same as a MatMul that leaves the axes before the last one alone, so that they can be told apart."""
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or source.op_type not in {"Gemm", "MatMul"} or len(list(source.outputs[0].uses())) > 1:
        return False
    layer = layer_of(source)
    flatten = layer.read.producer() if layer is not None else None
    after, target = work.shape(node.outputs[0]), node.inputs[1]
    if layer is None or layer.result is not node.inputs[0] or flatten is None or flatten.op_type != "Reshape":
        return False
    rows = work.shape(layer.read)
    if after is None or target is None or rows is None or len(rows) != 2 or len(after) < 3 or copies_nothing(node):
        return False
    inputs, outputs = layer.weight.shape
    if not is_fixed(after[-1]) or after[-1][0] != outputs or product(after[:-1]) != rows[0]:
        return False
    apart = work.emit(
        "Reshape", [flatten.inputs[0], with_entries(target, {len(after) - 1: work.ints(inputs)}, len(after), work)], node.attributes
    )
    made = work.emit("MatMul", [apart, work.constant(layer.weight, "weight")])
    work.replace(node.outputs[0], made if layer.bias is None else work.emit("Add", [made, layer.bias]))
    return True


def linear_of_flat(node: ir.Node, work: Rewriting) -> bool:
    """A linear layer on `[rows * past, k]` works on `[rows, past, k]`, and its result is flattened."""
    layer, flatten = layer_of(node), _flatten(node.inputs[0], work)
    if layer is None or flatten is None or not (layer.bias is None or const(layer.bias) is not None):
        return False
    made = work.emit("MatMul", [flatten.inputs[0], work.constant(np.ascontiguousarray(layer.weight), "weight")])
    whole = work.shape(flatten.inputs[0])
    if whole is not None:
        work.facts.learn(made, (*whole[:-1], (layer.weight.shape[1],) * WORLDS))
    if layer.bias is not None:
        made = work.emit("Add", [made, layer.bias])
    work.replace(layer.result, work.emit("Reshape", [made, work.ints(-1, layer.weight.shape[1])]))
    return True


def elementwise_of_flat(node: ir.Node, work: Rewriting) -> bool:
    """An operation number by number may come before the flattening; constants have to be the same for all rows."""
    flats = {number: flatten for number, value in enumerate(node.inputs) if (flatten := _flatten(value, work)) is not None}
    shapes = {id(flatten): work.shape(flatten.inputs[0]) for flatten in flats.values()}
    if not flats or len({shape[:-1] for shape in shapes.values() if shape is not None}) != 1:
        return False
    others = [value for number, value in enumerate(node.inputs) if number not in flats and value is not None]
    if not all(const(value) is not None and len(work.shape(value) or ()) < 2 for value in others):
        return False
    inputs = [flats[number].inputs[0] if number in flats else value for number, value in enumerate(node.inputs)]
    made = work.again(node, inputs)[0]
    width = (work.shape(node.outputs[0]) or ((0,),))[-1]
    if len(set(width)) != 1 or not width[0]:
        return False
    whole = next(shape for shape in shapes.values() if shape is not None)
    work.facts.learn(made, (*whole[:-1], width))
    work.replace(node.outputs[0], work.emit("Reshape", [made, work.ints(-1, width[0])]))
    return True


def _flatten(value: ir.Value | None, work: Rewriting) -> ir.Node | None:
    """The Reshape that made `value`, [a * b, k], of [a, b, k]."""
    node = value.producer() if value is not None else None
    after, before = work.shape(value), work.shape(node.inputs[0]) if node is not None else None
    if node is None or node.op_type != "Reshape" or node.domain != "" or before is None or after is None:
        return None
    merged = len(before) == 3 and len(after) == 2 and before[-1] == after[-1] and product(before[:-1]) == after[0]
    return node if merged and node.inputs[0] is not None and node.inputs[0].producer() is not None else None
