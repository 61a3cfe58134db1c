"""Edits of an ONNX graph that keep it whole: names stay unique, outputs keep their names, shared constants are copied, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

Attributes = Mapping[str, int | float | str | Sequence[int]]


def const(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of a constant, None for what is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None or tensor.dtype is ir.DataType.STRING else np.asarray(tensor.numpy())


def const_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a constant, its numbers left where they are; None for what is computed."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tuple(int(size) for size in tensor.shape.numpy())


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads `value` (once or several times), None when others or the caller read it too."""
    readers = {user for user, _ in value.uses()}
    return next(iter(readers)) if len(readers) == 1 and not value.is_graph_output() else None


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node of ONNX's own operator `op_type` that gives `value`, None when something else does."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain in {"", "ai.onnx"} else None


def given(node: ir.Node, position: int) -> ir.Value | None:
    """An input, None where it is left out."""
    return node.inputs[position] if position < len(node.inputs) else None


def constant(model: ir.Model, array: np.ndarray, like: str) -> ir.Value:
    """A new constant of `model` whose name starts with `like`."""
    made = {value.name for node in model.graph.all_nodes() for value in node.outputs}
    taken = made | {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    name, count = like, 1
    while name in taken:
        count += 1
        name = f"{like}_{count}"
    array = np.ascontiguousarray(array)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return value


def insert(before: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Attributes | None = None) -> ir.Value:
    """A new node in front of `before`; gives its output."""
    new = ir.node(op_type, inputs, attributes=dict(attributes or {}))
    graph_of(before).insert_before(before, new)
    return new.outputs[0]


def replace(old: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Attributes | None = None) -> ir.Node:
    """A new node in the place of `old`, which has one output."""
    new = ir.node(op_type, inputs, attributes=dict(attributes or {}), name=old.name)
    put(old, new)
    return new


def put(old: ir.Node, new: ir.Node) -> None:
    """`new`, already made, in the place of `old`; its first output is read wherever that of `old` was."""
    ir.convenience.replace_nodes_and_values(graph_of(old), old, [old], [new], [old.outputs[0]], [new.outputs[0]])


def bypass(node: ir.Node, value: ir.Value) -> None:
    """Let everything that reads the output of `node` read `value`, which takes the name of a graph's output where it can."""
    old, graph = node.outputs[0], graph_of(node)
    if old.is_graph_output():
        maker = value.producer()
        if maker is None or maker.graph is not graph or value.is_graph_output():
            if node.op_type != "Identity":
                replace(node, "Identity", [value])
            return
        value.shape, value.type = old.shape, old.type
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        value.name = old.name
        return
    old.replace_all_uses_with(value)
    graph.remove(node, safe=True)


def drop_unused(model: ir.Model) -> None:
    """Remove nodes and constants that nobody reads."""
    ir.passes.common.RemoveUnusedNodesPass()(model)


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that holds `node`."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise AssertionError("only nodes of a graph are edited")
    return graph
