"""Moving a selection up: where only one position of a sequence is read, only that position is computed.

A sequential ranker reads the last position of its encoder; position-wise layers, residuals and the queries of the last attention are
then needed there alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .expands import copies_nothing, same_place, with_entries
from .facts import WORLDS, is_one
from .label import is_size_one
from .labels import labels_of
from .rewriting import Rewriting

_LARGEST = np.iinfo(np.int64).max


def gather_of_one(node: ir.Node, work: Rewriting) -> bool:
    """A Gather of one constant position of something computed is a Slice, which can move up."""
    data, index = node.inputs
    array, shape = const(index), work.shape(data)
    if data is None or array is None or array.size != 1 or array.ndim > 1 or shape is None or const(data) is not None:
        return False
    if data.producer() is None:
        return False
    position, axis = int(array.reshape(-1)[0]), node.attributes.get_int("axis", 0) % len(shape)
    end = _LARGEST if position == -1 else position + 1
    # Out of range a Gather fails while a Slice gives nothing: only positions that are always there.
    if not all(-size <= position < size for size in shape[axis]) or (position not in {0, -1} and len(set(shape[axis])) > 1):
        return False
    one = work.emit("Slice", [data, work.ints(position), work.ints(end), work.ints(axis)])
    work.replace(node.outputs[0], one if array.ndim == 1 else work.emit("Squeeze", [one, work.ints(axis)]))
    return True


def gather_of_row(node: ir.Node, work: Rewriting) -> bool:
    """`x[0, position]` of a tensor with one row: a Gather of a position that is computed, which can move up."""
    data, index = (work.shape(value) for value in node.inputs)
    place = node.inputs[1].producer() if node.inputs[1] is not None else None
    if data is None or index is None or place is None or place.op_type != "Concat" or node.attributes.get_int("batch_dims", 0) != 0:
        return False
    if len(index) != 2 or not is_one(index[0]) or index[1] != (2,) * WORLDS or len(place.inputs) != 2 or not is_one(data[0]):
        return False
    row = const(place.inputs[0])
    if row is None or row.any() or len(data) < 3:
        return False
    flat = work.emit("Reshape", [place.inputs[1], work.ints(1)])
    work.facts.learn(flat, ((1,) * WORLDS,))
    one = work.emit("Gather", [node.inputs[0], flat], {"axis": 1})
    work.replace(node.outputs[0], work.emit("Squeeze", [one, work.ints(1)]))
    return True


def slice_up(node: ir.Node, work: Rewriting) -> bool:
    """slice(f(x)) = f(slice(x)) where f does not mix the axis and nobody reads f(x) but equal slices."""
    value, axis = node.inputs[0], _axis(node, work)
    source = value.producer() if value is not None else None
    before, after = work.shape(value), work.shape(node.outputs[0])
    if value is None or source is None or axis is None or before is None or after is None or source.domain != "":
        return False
    if not is_one(after[axis]) or is_one(before[axis]) or value.is_graph_output() or not _alone(node, value, work):
        return False
    match source.op_type:
        case "Reshape":
            made = _above_reshape(node, source, axis, work)
        case "GRU":
            made = _last_state(node, source, value, work) if axis == 0 else None
        case _:
            made = _above(node, source, axis, work)
    if made is not None:
        work.replace(node.outputs[0], made)
    return made is not None


def _axis(node: ir.Node, work: Rewriting) -> int | None:
    """The axis along which `node` selects: a Slice along one constant axis, or a Gather by a vector of one index."""
    shape = work.shape(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Gather":
        index = work.shape(node.inputs[1])
        one = index is not None and len(index) == 1 and is_one(index[0])
        return node.attributes.get_int("axis", 0) % len(shape) if one and const(node.inputs[0]) is None else None
    axes = const(node.inputs[3]) if len(node.inputs) > 3 else None
    steps = const(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if steps is None or (steps != 1).any():
        return None
    return None if axes is None or axes.size != 1 else int(axes.reshape(-1)[0]) % len(shape)


def _alone(node: ir.Node, value: ir.Value, work: Rewriting) -> bool:
    """Whether `node` is the only reader of `value`, after readers that select the same have been told to read what it gives."""
    others = [user for user, _ in value.uses() if user is not node]
    if not all(_equal(node, other) for other in others):
        return False
    for other in others:
        work.replace(other.outputs[0], node.outputs[0])
    return True


def _equal(one: ir.Node, other: ir.Node) -> bool:
    if (one.op_type, one.domain, len(one.inputs)) != (other.op_type, other.domain, len(other.inputs)) or other.graph is not one.graph:
        return False
    if {name: attribute.value for name, attribute in one.attributes.items()} != {n: a.value for n, a in other.attributes.items()}:
        return False
    return all(_same(a, b) for a, b in zip(one.inputs, other.inputs, strict=True)) and not other.outputs[0].is_graph_output()


def _same(one: ir.Value | None, other: ir.Value | None) -> bool:
    if one is other:
        return True
    a, b = const(one), const(other)
    return a is not None and b is not None and np.array_equal(a, b)


def _above(node: ir.Node, source: ir.Node, axis: int, work: Rewriting) -> ir.Value | None:
    if _axis(source, work) is not None:
        return None  # two selections would change places for ever
    labels = labels_of(source, work)
    if labels is None or len(source.outputs) != 1 or labels.outputs[0][axis] is None:
        return None
    label = labels.outputs[0][axis]
    inputs = list(source.inputs)
    for number, own in enumerate(labels.inputs):
        for place, other in enumerate(own):
            if other == label and not is_size_one(work, source.inputs[number], place):
                inputs[number] = _cut(node, source.inputs[number], place, work)
    return None if inputs == list(source.inputs) else work.again(source, inputs)[0]


def _cut(node: ir.Node, value: ir.Value | None, axis: int, work: Rewriting) -> ir.Value:
    """The selection that `node` makes, along another axis of another value."""
    if node.op_type == "Gather":
        made = work.emit("Gather", [value, node.inputs[1]], {"axis": axis})
    else:
        made = work.emit("Slice", [value, node.inputs[1], node.inputs[2], work.ints(axis)])
    shape = work.shape(value)
    if shape is not None:
        work.facts.learn(made, (*shape[:axis], (1,) * WORLDS, *shape[axis + 1 :]))
    return made


def _above_reshape(node: ir.Node, source: ir.Node, axis: int, work: Rewriting) -> ir.Value | None:
    before, after = work.shape(source.outputs[0]), work.shape(source.inputs[0])
    target = source.inputs[1]
    if before is None or after is None or target is None or copies_nothing(source):
        return None
    place = same_place(before, after, axis)
    if place is None:
        return None
    one = _cut(node, source.inputs[0], place, work)
    return work.emit("Reshape", [one, with_entries(target, {axis: work.ints(1)}, len(before), work)], source.attributes)


def _last_state(node: ir.Node, source: ir.Node, value: ir.Value, work: Rewriting) -> ir.Value | None:
    """The last step of a forward GRU's states is its final state."""
    start = const(node.inputs[1]) if node.op_type == "Slice" else None
    if value is not source.outputs[0] or start is None or int(start.reshape(-1)[0]) != -1 or len(source.outputs) < 2:
        return None
    lengths = source.inputs[4] if len(source.inputs) > 4 else None
    forward = source.attributes.get_string("direction", "forward") == "forward"
    if lengths is not None or not forward or source.attributes.get_int("layout", 0) != 0:
        return None
    return work.emit("Unsqueeze", [source.outputs[1], work.ints(0)])
