"""Axes of size 1 that come and go: lookups and concatenations are made without them, so that nothing has to be reshaped."""

from __future__ import annotations

import onnx_ir as ir

from ..fuse.edit import const
from .expands import copies_nothing
from .facts import WORLDS, is_fixed, is_one
from .label import axes_of
from .rewriting import Rewriting

_VIEWS = frozenset({"Unsqueeze", "Squeeze", "Reshape"})


def lookup_of_column(node: ir.Node, work: Rewriting) -> bool:
    """Looking up ids with an extra axis is looking up ids and giving the result that axis."""
    data, index = node.inputs
    lift = index.producer() if index is not None else None
    axes, whole = axes_of(lift) if lift is not None and lift.op_type == "Unsqueeze" else None, work.shape(index)
    ids = lift.inputs[0] if lift is not None else None
    plain = work.shape(ids)
    if not axes or ids is None or whole is None or plain is None or node.attributes.get_int("axis", 0) != 0 or const(data) is None:
        return False
    found = work.again(node, [data, ids])[0]
    width = (work.shape(data) or ())[1:]
    work.facts.learn(found, (*plain, *width))
    work.replace(node.outputs[0], work.emit("Unsqueeze", [found, work.ints(*(axis % len(whole) for axis in axes))]))
    return True


def reshape_of_view(node: ir.Node, work: Rewriting) -> bool:
    """A Reshape of something reshaped reshapes what was there at first, and is nothing where that has the shape already."""
    value, after = node.inputs[0], work.shape(node.outputs[0])
    if value is None or after is None:
        return False
    if work.shape(value) == after:
        work.replace(node.outputs[0], value)
        return True
    source, target = value.producer(), const(node.inputs[1])
    if source is None or source.op_type not in _VIEWS or target is None or (target == 0).any() or copies_nothing(node):
        return False
    work.replace(node.outputs[0], work.again(node, [source.inputs[0], node.inputs[1]])[0])
    return True


def squeeze_of_unsqueeze(node: ir.Node, work: Rewriting) -> bool:
    """An axis that was just added and is dropped again."""
    value = node.inputs[0]
    source = value.producer() if value is not None else None
    if source is None or source.op_type != "Unsqueeze" or source.inputs[0] is None:
        return False
    dropped, added, shape = axes_of(node), axes_of(source), work.shape(value)
    if not dropped or not added or shape is None or {a % len(shape) for a in dropped} != {a % len(shape) for a in added}:
        return False
    work.replace(node.outputs[0], source.inputs[0])
    return True


def concat_of_lifted(node: ir.Node, work: Rewriting) -> bool:
    """Values with an axis of size 1 each, put side by side along another axis, get that axis together."""
    lifted, shape = _lifted(node, work), work.shape(node.outputs[0])
    if lifted is None or shape is None:
        return False
    axis, (new, plain) = node.attributes.get_int("axis", 0) % len(shape), lifted
    if axis == new:
        return False
    joined = work.emit("Concat", plain, {"axis": axis - (axis > new)})
    work.facts.learn(joined, (*shape[:new], *shape[new + 1 :]))
    work.replace(node.outputs[0], work.emit("Unsqueeze", [joined, work.ints(new)]))
    return True


def flattened_stack(node: ir.Node, work: Rewriting) -> bool:
    """Vectors stacked, `[rows, n, d]`, and flattened again, `[rows, n d]`, are vectors side by side."""
    value, after = node.inputs[0], work.shape(node.outputs[0])
    source, before = value.producer() if value is not None else None, work.shape(value)
    if source is None or source.op_type != "Concat" or before is None or after is None or len(before) != 3 or len(after) != 2:
        return False
    lifted = _lifted(source, work)
    if lifted is None or lifted[0] != 1 or source.attributes.get_int("axis", 0) % 3 != 1 or before[0] != after[0]:
        return False
    if not is_fixed(before[1]) or not is_fixed(before[2]) or after[1] != (before[1][0] * before[2][0],) * WORLDS:
        return False
    work.replace(node.outputs[0], work.emit("Concat", lifted[1], {"axis": -1}))
    return True


def _lifted(node: ir.Node, work: Rewriting) -> tuple[int, list[ir.Value]] | None:
    """The axis that every input of a Concat got by an Unsqueeze, and the inputs without it."""
    plain: list[ir.Value] = []
    places: set[int] = set()
    for value in node.inputs:
        source, shape = value.producer() if value is not None else None, work.shape(value)
        axes = axes_of(source) if source is not None and source.op_type == "Unsqueeze" else None
        if source is None or source.inputs[0] is None or shape is None or axes is None or len(axes) != 1:
            return None
        if not is_one(shape[axes[0] % len(shape)]) or work.shape(source.inputs[0]) is None:
            return None
        plain.append(source.inputs[0])
        places.add(axes[0] % len(shape))
    return (places.pop(), plain) if len(places) == 1 else None
