"""The same numbers under another shape: reshapes of reshapes, axes that are added and dropped again."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import dims_of, reshape_target, same
from .edit import bypass, const, constant, given, insert, only_reader, producer, replace

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceProd", "ReduceSumSquare"})


def shorten_views(model: ir.Model) -> int:
    """Views of views come from the first tensor, and those that give back its shape go; returns how many nodes were spared."""
    changed = 0
    for node in list(model.graph):
        if node.graph is not model.graph or node.domain not in {"", "ai.onnx"}:
            continue
        if node.op_type in _VIEWS:
            changed += _shorten(node)
        elif node.op_type == "Gather":
            changed += _pick_back(node)
        elif node.op_type in _REDUCTIONS:
            changed += _keep_axis(node)
        elif node.op_type == "Concat":
            changed += _concat_below(node, model)
    return changed


def _shorten(node: ir.Node) -> int:
    dims, value = dims_of(node.outputs[0]), node.inputs[0]
    seen = 0
    while value is not None and (maker := value.producer()) is not None and maker.op_type in _VIEWS:
        value, seen = maker.inputs[0], seen + 1
        if value is not None and same(dims_of(value), dims):
            bypass(node, value)
            return seen
    target = const(given(node, 1)) if node.op_type == "Reshape" else None
    if value is None or not seen or target is None or not target.all():
        return 0
    node.replace_input_with(0, value)
    return seen


def _pick_back(node: ir.Node) -> int:
    """Taking the only entry of an axis that was just added."""
    added, index = producer(node.inputs[0], "Unsqueeze"), const(node.inputs[1])
    axes = None if added is None else const(given(added, 1))
    dims = dims_of(node.inputs[0])
    if added is None or added.inputs[0] is None or index is None or axes is None or dims is None or axes.size != 1:
        return 0
    axis = node.attributes.get_int("axis", 0) % len(dims)
    if index.ndim or int(index) not in (0, -1) or int(axes.reshape(())) % len(dims) != axis:
        return 0
    bypass(node, added.inputs[0])
    return 1


def _keep_axis(node: ir.Node) -> int:
    """A reduction whose axis is put back by the one node that reads it keeps that axis itself."""
    axes, reader = const(given(node, 1)), only_reader(node.outputs[0])
    dims = dims_of(node.inputs[0])
    if node.attributes.get_int("keepdims", 1) or axes is None or axes.size != 1 or reader is None or dims is None:
        return 0
    back = const(given(reader, 1)) if reader.op_type == "Unsqueeze" and reader.graph is node.graph else None
    if back is None or back.size != 1 or int(back.reshape(())) % len(dims) != int(axes.reshape(())) % len(dims):
        return 0
    kept = insert(node, node.op_type, list(node.inputs), {"keepdims": 1})
    bypass(reader, kept)
    return 1


def _concat_below(node: ir.Node, model: ir.Model) -> int:
    """Rows `[rows, d]` that get an axis of size 1 only to be concatenated and flattened are concatenated as they are."""
    shapes = [dims_of(value) for value in node.inputs]
    readers = {user for user, _ in node.outputs[0].uses()}
    sources = [_without_axis(value) for value in node.inputs]
    flattened = all(reader.op_type == "Reshape" and _absolute(reader) for reader in readers) and not node.outputs[0].is_graph_output()
    if not readers or not flattened or len(node.inputs) < 2 or any(shape is None or len(shape) != 3 for shape in shapes):
        return 0
    if None in sources or node.attributes.get_int("axis", 0) % 3 == 0:
        return 0
    total = reshape_target(dims_of(node.outputs[0]))
    if total is None:
        return 0
    flat = insert(node, "Concat", sources, {"axis": 1})
    replace(node, "Reshape", [flat, constant(model, np.asarray(total, np.int64), "layout")])
    return 1


def _without_axis(value: ir.Value | None) -> ir.Value | None:
    """What `value`, `[rows, 1, d]`, was before its middle axis was added."""
    maker = value.producer() if value is not None else None
    dims = dims_of(value)
    if maker is None or dims is None or maker.op_type not in _VIEWS or len(dims) != 3 or dims[1] != 1:
        return None
    return maker.inputs[0] if same(dims_of(maker.inputs[0]), (dims[0], dims[2])) else None


def _absolute(reshape: ir.Node) -> bool:
    target = const(given(reshape, 1))
    return target is not None and bool(target.all())
