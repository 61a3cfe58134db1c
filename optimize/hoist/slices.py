"""Moving a selection up: where only one position of a sequence is read, only that position is computed.

A sequential ranker reads the last position of its encoder; position-wise layers, residuals and the queries of the last attention are
then needed there alone.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .expands import copies_nothing, same_place, with_entries
from .facts import is_one
from .labels import is_size_one, labels_of
from .rewriting import Rewriting, constant_of

_LARGEST = np.iinfo(np.int64).max


def gather_of_one(node: ir.Node, work: Rewriting) -> bool:
    """A Gather of one constant position of something computed is a Slice, which can move up."""
    data, index = node.inputs
    array, shape = constant_of(index), work.shape(data)
    if data is None or array is None or array.size != 1 or array.ndim > 1 or shape is None or constant_of(data) is not None:
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


def slice_up(node: ir.Node, work: Rewriting) -> bool:
    """slice(f(x)) = f(slice(x)) where f does not mix the axis and nobody else reads f(x)."""
    value, axes = node.inputs[0], constant_of(node.inputs[3]) if len(node.inputs) > 3 else None
    source = value.producer() if value is not None else None
    before, after = work.shape(value), work.shape(node.outputs[0])
    if value is None or source is None or axes is None or axes.size != 1 or before is None or after is None or source.domain != "":
        return False
    axis = int(axes.reshape(-1)[0]) % len(before)
    if not is_one(after[axis]) or is_one(before[axis]) or value.is_graph_output() or len(list(value.uses())) > 1:
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


def _above(node: ir.Node, source: ir.Node, axis: int, work: Rewriting) -> ir.Value | None:
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
    return work.emit("Slice", [value, node.inputs[1], node.inputs[2], work.ints(axis)])


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
    start = constant_of(node.inputs[1])
    if value is not source.outputs[0] or start is None or int(start.reshape(-1)[0]) != -1 or len(source.outputs) < 2:
        return None
    lengths = source.inputs[4] if len(source.inputs) > 4 else None
    forward = source.attributes.get_string("direction", "forward") == "forward"
    if lengths is not None or not forward or source.attributes.get_int("layout", 0) != 0:
        return None
    return work.emit("Unsqueeze", [source.outputs[1], work.ints(0)])
