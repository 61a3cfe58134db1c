"""Concatenations that only lay the same numbers out once more."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import dims_of, reshape_target
from .edit import constant, only_reader, replace


def share_concats(model: ir.Model) -> int:
    """Two Concats of the same inputs along axes between which all sizes are 1 hold the same memory: the later becomes a Reshape.

    `[rows, 1, d]` each gives `[rows, fields, d]` along axis 1 for factorisation machines, `[rows, 1, fields * d]` along axis 2 for the MLP.
    """
    changed = 0
    known: dict[tuple[ir.Value | None, ...], list[ir.Node]] = {}
    for node in list(model.graph):
        if node.op_type != "Concat" or node.domain not in {"", "ai.onnx"} or len(node.inputs) < 2:
            continue
        others = known.setdefault(tuple(node.inputs), [])
        target = reshape_target(dims_of(node.outputs[0]))
        one = next((other for other in others if _same_memory(other, node)), None)
        if one is None or target is None:
            others.append(node)
            continue
        replace(node, "Reshape", [one.outputs[0], constant(model, np.asarray(target, np.int64), "layout")])
        changed += 1
    return changed


def flatten_concats(model: ir.Model) -> int:
    """Nested Concats along one axis become one; returns how many went."""
    gone = 0
    for node in list(model.graph):
        if node.op_type != "Concat" or node.graph is None:
            continue
        inputs: list[ir.Value | None] = []
        for value in node.inputs:
            inner = value.producer() if value is not None else None
            if (
                value is not None
                and inner is not None
                and inner.op_type == "Concat"
                and _axis(inner) == _axis(node)
                and only_reader(value) is node
            ):
                inputs.extend(inner.inputs)
            else:
                inputs.append(value)
        if len(inputs) > len(node.inputs) and _axis(node) is not None:
            gone += len({id(value) for value in node.inputs} - {id(value) for value in inputs})
            replace(node, "Concat", inputs, {"axis": node.attributes.get_int("axis", 0)})
    return gone


def _axis(node: ir.Node) -> int | None:
    """The axis from 0, None where the rank is unknown."""
    dims = next((dims for dims in (dims_of(value) for value in (*node.outputs, *node.inputs)) if dims is not None), None)
    return None if dims is None else node.attributes.get_int("axis", 0) % len(dims)


def _same_memory(one: ir.Node, other: ir.Node) -> bool:
    first, second = _axis(one), _axis(other)
    if first is None or second is None:
        return False
    low, high = sorted((first, second))
    inputs = [dims_of(value) for value in one.inputs]
    return all(dims is not None and all(size == 1 for size in dims[low:high]) for dims in inputs)
