"""Squeezes that PyTorch and ONNX read differently.

`x.squeeze()` drops every dimension of size 1, so a single row loses its row; `x.squeeze(0)` is allowed where the size is not 1, and then
does nothing, while ONNX's Squeeze fails.
"""

from __future__ import annotations

import onnx_ir as ir


def mend_squeezes(model: ir.Model) -> int:
    """Let every Squeeze drop exactly the dimensions whose size is 1 whatever the number of rows; returns how many were changed.

    A Squeeze whose input has no known shape, or whose axes are computed, is left alone. For two rows and more nothing changes.
    """
    changed = 0
    for node in [node for node in model.graph.all_nodes() if node.op_type == "Squeeze" and not node.domain]:
        asked, droppable = _asked(node), _droppable(node)
        if asked is None or droppable is None or (asked and asked <= droppable):
            continue
        _replace(node, sorted(droppable & asked if asked else droppable))
        changed += 1
    return changed


def _droppable(node: ir.Node) -> set[int] | None:
    """Axes of size 1 of a Squeeze's input, None when its shape is not known."""
    data = node.inputs[0]
    return None if data is None or data.shape is None else {axis for axis, size in enumerate(data.shape) if size == 1}


def _asked(node: ir.Node) -> set[int] | None:
    """Axes a Squeeze names, from 0; nothing when it names none, None when they are not constant."""
    data, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if axes is None:
        return set()
    constant = ir.convenience.get_const_tensor(axes)
    if constant is None or data is None or data.shape is None:
        return None
    return {int(axis) % len(data.shape) for axis in constant.numpy().reshape(-1)}


def _replace(node: ir.Node, axes: list[int]) -> None:
    data, old, owner = node.inputs[0], node.outputs[0], node.graph
    if data is None or owner is None:
        raise AssertionError("chosen for having an input, in a graph")
    new = ir.Value(name=old.name, shape=old.shape, type=old.type)
    if axes:
        constant = ir.node("Constant", [], attributes={"value": ir.tensor(axes, dtype=ir.DataType.INT64)})
        nodes = [constant, ir.node("Squeeze", [data, constant.outputs[0]], outputs=[new], name=node.name)]
    else:
        nodes = [ir.node("Identity", [data], outputs=[new], name=node.name)]
    ir.convenience.replace_nodes_and_values(owner, node, [node], nodes, [old], [new])
