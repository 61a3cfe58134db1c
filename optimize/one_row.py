"""Graphs that lose their rows when there is only one: `x.squeeze()` drops every dimension of size 1, and rows may be one of them."""

from __future__ import annotations

import onnx_ir as ir


def keep_rows(model: ir.Model) -> int:
    """Give every Squeeze that names no axes those whose size is 1 whatever the number of rows; returns how many were changed.

    A Squeeze whose input has no known shape is left alone. For two rows and more nothing changes; a single row keeps its dimension.
    """
    found = [node for node in model.graph.all_nodes() if node.op_type == "Squeeze" and not node.domain and _needs_axes(node)]
    for node in found:
        data = node.inputs[0]
        if data is None or data.shape is None or node.graph is None:
            raise AssertionError("chosen for having a shape and a place")
        axes = [axis for axis, size in enumerate(data.shape) if size == 1]
        old = node.outputs[0]
        new = ir.Value(name=old.name, shape=old.shape, type=old.type)
        if axes:
            constant = ir.node("Constant", [], attributes={"value": ir.tensor(axes, dtype=ir.DataType.INT64)})
            nodes = [constant, ir.node("Squeeze", [data, constant.outputs[0]], outputs=[new], name=node.name)]
        else:
            nodes = [ir.node("Identity", [data], outputs=[new], name=node.name)]
        ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, [old], [new])
    return len(found)


def _needs_axes(node: ir.Node) -> bool:
    data = node.inputs[0]
    return len([i for i in node.inputs if i is not None]) == 1 and data is not None and data.shape is not None and node.graph is not None
