"""Linear layers that PyTorch flattens its sequences for."""

from __future__ import annotations

import onnx_ir as ir

from .expands import copies_nothing, with_entries
from .facts import is_fixed, product
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
