"""Nodes that give back what they take."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import Dims, asked_dims, broadcast, dims_of, same
from .edit import bypass, const, given, producer

_FAR = 2**31 - 1


def drop_identities(model: ir.Model) -> int:
    """Let readers of a node that changes nothing read its input; returns how many such nodes went."""
    gone = 0
    for node in list(model.graph):
        if node.domain not in {"", "ai.onnx"} or not node.inputs:
            continue
        kept = _kept(node)
        if kept is not None and not (node.op_type == "Identity" and node.outputs[0].is_graph_output()):
            bypass(node, kept)
            gone += 1
    return gone


def _kept(node: ir.Node) -> ir.Value | None:
    """The input that `node` hands on unchanged."""
    value = node.inputs[0]
    if value is None:
        return None
    match node.op_type:
        case "Identity":
            found = True
        case "Dropout":
            training = const(given(node, 2))
            found = (given(node, 2) is None or (training is not None and not training.any())) and not node.outputs[1:]
        case "Cast":
            found = value.dtype is not None and int(value.dtype) == node.attributes.get_int("to", 0)
        case "Transpose":
            perm = node.attributes.get_ints("perm", None)
            found = perm is not None and list(perm) == sorted(perm)
        case "Concat":
            found = len(node.inputs) == 1
        case "Reshape" | "Expand" | "Flatten" | "Tile":
            found = same(dims_of(value), dims_of(node.outputs[0])) or _same_rows(node)
        case "Slice":
            found = _takes_all(node)
        case "Add" | "Sub" | "Mul" | "Div":
            return _neutral(node)
        case _:
            found = False
    return value if found else None


def _same_rows(node: ir.Node) -> bool:
    """Whether a Reshape to `[-1, width]` reads a matrix of that width, however many rows it has."""
    dims, target = dims_of(node.inputs[0]), const(given(node, 1)) if node.op_type == "Reshape" else None
    return dims is not None and target is not None and len(dims) == 2 and target.tolist() == [-1, dims[1]] and dims[1] != 0


def _takes_all(node: ir.Node) -> bool:
    starts, stops, steps = const(given(node, 1)), const(given(node, 2)), const(given(node, 4))
    plain = starts is not None and not starts.any() and (given(node, 4) is None or (steps is not None and bool((steps == 1).all())))
    return plain and ((stops is not None and bool((stops >= _FAR).all())) or same(dims_of(node.inputs[0]), dims_of(node.outputs[0])))


def _neutral(node: ir.Node) -> ir.Value | None:
    """The operand that stays when exactly 0 is added or it is multiplied by exactly 1, and broadcast to nothing larger."""
    neutral = 0.0 if node.op_type in {"Add", "Sub"} else 1.0
    left, right = node.inputs
    pairs = [(left, right)] if node.op_type in {"Sub", "Div"} else [(left, right), (right, left)]
    for value, other in pairs:
        dims = _dims_of_all(other, neutral)
        if value is not None and dims is not None and same(broadcast(dims_of(value), dims), dims_of(value)):
            return value
    return None


def _dims_of_all(value: ir.Value | None, number: float) -> Dims | None:
    """The shape of a float tensor whose every element is exactly `number`."""
    found = const(value)
    if found is not None:
        return found.shape if found.dtype.kind == "f" and bool((found == number).all()) else None
    filled = producer(value, "ConstantOfShape")
    if filled is None:
        return None
    content = filled.attributes.get_tensor("value", None)
    element = 0.0 if content is None else float(np.asarray(content.numpy()).reshape(()))
    return asked_dims(filled.inputs[0]) if element == number else None
