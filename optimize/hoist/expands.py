"""Pushing repetition down: what is repeated before an operation is computed once and repeated after it, or not at all.

Each rule is an identity of tensor algebra. An operation that mixes the entries along a repeated axis is left as it is, so a model that
compares candidates with one another keeps its meaning.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .facts import Shape, is_one, product
from .labels import Label, Labels, is_size_one, labels_of
from .rewriting import Expansion, Rewriting, constant_of


def through_operation(node: ir.Node, work: Rewriting) -> bool:
    """f(repeat(x)) = repeat(f(x)) along every axis that f does not mix; where another operand has the full size, broadcasting repeats."""
    repeated = {number: found for number, value in enumerate(node.inputs) if (found := work.expansion(value)) is not None}
    labels = labels_of(node, work) if repeated else None
    if labels is None or any(work.shape(value) is None for value in node.inputs if value is not None):
        return False
    gone = {number: _once(number, found, labels, repeated, node, work) for number, found in repeated.items()}
    if not any(gone.values()):
        return False
    inputs = list(node.inputs)
    for number, found in repeated.items():
        if gone[number]:
            kept = {axis: size for axis, size in found.sizes.items() if axis not in gone[number]}
            inputs[number] = work.expand(found.base, kept, len(labels.inputs[number]))
    sizes = _left_over(gone, labels, repeated, node, work)
    for old, new, axes in zip(node.outputs, work.again(node, inputs), labels.outputs, strict=True):
        if axes:
            outer = {number - len(axes): sizes[label] for number, label in enumerate(axes) if label is not None and label in sizes}
            new = work.expand(new, outer, len(axes))  # noqa: PLW2901 - the value that takes the old one's place
        work.replace(old, new)
    return True


def _once(number: int, found: Expansion, labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting) -> set[int]:
    """The axes (from the end) along which input `number` need not be repeated."""
    axes: set[int] = set()
    own = labels.inputs[number]
    for axis in found.sizes:
        label = own[axis] if own else None
        if label is not None and (labels.broadcasts or _all_repeat(label, labels, repeated, node, work)):
            axes.add(axis)
    return axes


def _all_repeat(label: Label, labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting) -> bool:
    """Whether every input that has this axis repeats something along it, or has size 1 there."""
    for number, own in enumerate(labels.inputs):
        for axis, other in enumerate(own):
            if other == label and not is_size_one(work, node.inputs[number], axis):
                found = repeated.get(number)
                if found is None or axis - len(own) not in found.sizes:
                    return False
    return True


def _left_over(
    gone: dict[int, set[int]], labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting
) -> dict[Label, ir.Value]:
    """Labels along which no input has its full size any more, and that size: the result has to be repeated along them."""
    sizes = {labels.inputs[number][axis]: repeated[number].sizes[axis] for number, axes in gone.items() for axis in axes}
    for number, own in enumerate(labels.inputs):
        for axis, label in enumerate(own):
            if label in sizes and axis - len(own) not in gone.get(number, ()) and not is_size_one(work, node.inputs[number], axis):
                del sizes[label]
    return sizes


def through_reshape(node: ir.Node, work: Rewriting) -> bool:
    """A Reshape that leaves the repeated axis whole reshapes one copy."""
    found = work.expansion(node.inputs[0])
    before, after = work.shape(node.inputs[0]), work.shape(node.outputs[0])
    target = node.inputs[1]
    if found is None or before is None or after is None or target is None or node.attributes.get_int("allowzero", 0):
        return False
    places = {axis: same_place(before, after, axis + len(before)) for axis in found.sizes}
    moved = {axis: place for axis, place in places.items() if place is not None}
    if not moved or any(place is None for place in places.values()):
        return False
    shape = with_ones(target, sorted(set(moved.values())), len(after), work)
    made = work.emit("Reshape", [found.base, shape])
    sizes = {place - len(after): found.sizes[axis] for axis, place in moved.items()}
    work.replace(node.outputs[0], work.expand(made, sizes, len(after)))
    return True


def same_place(before: Shape, after: Shape, axis: int) -> int | None:
    """The axis of the reshaped tensor that is `axis` of the original: of the same size, with as many elements before it."""
    ahead = product(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] and product(after[:place]) == ahead:
            return place
    return None


def with_ones(target: ir.Value, places: list[int], rank: int, work: Rewriting) -> ir.Value:
    """The shape `target` with 1 in these places."""
    array = constant_of(target)
    if array is not None:
        changed = np.array(array, dtype=np.int64)
        changed[places] = 1
        return work.ints(*(int(number) for number in changed))
    parts = [work.ints(1) if place in places else work.piece(target, place) for place in range(rank)]
    return work.emit("Concat", parts, {"axis": 0})


def through_shape(node: ir.Node, work: Rewriting) -> bool:
    """The shape of something repeated is known without repeating it."""
    found, shape = work.expansion(node.inputs[0]), work.shape(node.inputs[0])
    if found is None or shape is None:
        return False
    rank = len(shape)
    start, end, _ = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)).indices(rank)
    parts = []
    for axis in range(start, end):
        if axis - rank in found.sizes:
            parts.append(found.sizes[axis - rank])
        else:
            parts.append(work.emit("Shape", [found.base], {"start": axis, "end": axis + 1}))
    if not parts:
        return False
    work.replace(node.outputs[0], parts[0] if len(parts) == 1 else work.emit("Concat", parts, {"axis": 0}))
    return True


def of_expand(node: ir.Node, work: Rewriting) -> bool:
    """Expand as the rules expect it: it adds no axes, repeats nothing that repeats, and does something."""
    before, after = work.shape(node.inputs[0]), work.shape(node.outputs[0])
    value, target = node.inputs
    if before is None or after is None or value is None:
        return False
    if before == after:
        work.replace(node.outputs[0], value)
        return True
    if len(before) < len(after):
        lifted = work.emit("Unsqueeze", [value, work.ints(*range(len(after) - len(before)))])
        work.replace(node.outputs[0], work.again(node, [lifted, target])[0])
        return True
    outer, inner = work.expansion(node.outputs[0]), work.expansion(value)
    if outer is None or inner is None:
        return False
    work.replace(node.outputs[0], work.expand(inner.base, {**inner.sizes, **outer.sizes}, len(after)))
    return True


def of_tile(node: ir.Node, work: Rewriting) -> bool:
    """A Tile along axes of size 1 is an Expand."""
    value, repeats = node.inputs
    before, after = work.shape(value), work.shape(node.outputs[0])
    if value is None or repeats is None or before is None or after is None:
        return False
    axes = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    if not axes or not all(is_one(before[axis]) for axis in axes):
        return False
    sizes = {axis - len(after): work.piece(repeats, axis) for axis in axes}
    work.replace(node.outputs[0], work.expand(value, sizes, len(after)))
    return True


def of_constant_of_shape(node: ir.Node, work: Rewriting) -> bool:
    """A constant of any shape is one number repeated."""
    after, content = work.shape(node.outputs[0]), node.attributes.get("value")
    target = node.inputs[0]
    if not after or target is None or all(is_one(size) for size in after):
        return False
    array = np.zeros(1, dtype=np.float32) if content is None else np.asarray(content.as_tensor().numpy())
    one = work.constant(array.reshape((1,) * len(after)), "repeated")
    made = work.emit("Expand", [one, target])
    work.replace(node.outputs[0], made)
    return True
