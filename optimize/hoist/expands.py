"""Pushing repetition down: what is repeated before an operation is computed once and repeated after it, or not at all.

Each rule is an identity of tensor algebra. An operation that mixes the entries along a repeated axis is left as it is, so a model that
compares candidates with one another keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .facts import Shape, Size, is_fixed, is_one, product
from .label import Label, Labels, is_size_one
from .labels import labels_of
from .rewriting import Expansion, Rewriting


def through_operation(node: ir.Node, work: Rewriting) -> bool:
    """f(repeat(x)) = repeat(f(x)) along every axis that f does not mix; where another operand has the full size, broadcasting repeats."""
    repeated = {number: found for number, value in enumerate(node.inputs) if (found := work.expansion(value)) is not None}
    labels = labels_of(node, work) if repeated else None
    if labels is None or any(work.shape(value) is None for value in node.inputs if value is not None):
        return False
    gone = {number: _once(number, labels, repeated, node, work) for number in repeated}
    if not any(gone.values()):
        return False
    inputs = list(node.inputs)
    for number, found in repeated.items():
        if gone[number]:
            kept = {axis: size for axis, size in found.sizes.items() if axis not in gone[number]}
            inputs[number] = work.expand(found.base, kept, len(labels.inputs[number]), found.blocks)
    sizes, blocks = _left_over(gone, labels, repeated, node, work)
    for old, new, axes in zip(node.outputs, work.again(node, inputs), labels.outputs, strict=True):
        if axes:
            outer = {number - len(axes): label for number, label in enumerate(axes) if label is not None and label in sizes}
            whole = frozenset(axis for axis, label in outer.items() if label in blocks)
            work.facts.learn(new, _of_one_copy(work.shape(old), outer, labels, repeated, work))
            new = work.expand(new, {axis: sizes[label] for axis, label in outer.items()}, len(axes), whole)  # noqa: PLW2901 - in its place
        work.replace(old, new)
    return True


def _of_one_copy(
    shape: Shape | None, outer: Mapping[int, Label], labels: Labels, repeated: dict[int, Expansion], work: Rewriting
) -> Shape | None:
    """`shape` before it is repeated along the axes in `outer`."""
    if shape is None:
        return None
    found = list(shape)
    for axis, label in outer.items():
        for number, expansion in repeated.items():
            base = work.shape(expansion.base)
            if label in labels.inputs[number] and base is not None:
                place = labels.inputs[number].index(label) - len(base)
                if place in expansion.sizes:
                    found[axis] = base[place]
    return tuple(found)


def _once(number: int, labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting) -> set[int]:
    """The axes (from the end) along which input `number` need not be repeated."""
    axes: set[int] = set()
    own, found = labels.inputs[number], repeated[number]
    for axis in found.sizes:
        label = own[axis] if own else None
        if label is not None and ((labels.broadcasts and axis not in found.blocks) or _all_repeat(label, labels, repeated, node, work)):
            axes.add(axis)
    return axes


def _all_repeat(label: Label, labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting) -> bool:
    """Whether every input that has this axis repeats equally large blocks along it, or has size 1 there."""
    blocks = set()
    for number, own in enumerate(labels.inputs):
        for axis, other in enumerate(own):
            if other == label and not (labels.broadcasts and is_size_one(work, node.inputs[number], axis)):
                found = repeated.get(number)
                base = work.shape(found.base) if found is not None else None
                if found is None or base is None or axis - len(own) not in found.sizes:
                    return False
                blocks.add(base[axis])
    return len(blocks) == 1


def _left_over(
    gone: dict[int, set[int]], labels: Labels, repeated: dict[int, Expansion], node: ir.Node, work: Rewriting
) -> tuple[dict[Label, ir.Value], set[Label]]:
    """Labels along which no input has its full size any more, with that size, and which of them repeat blocks: so must the result."""
    sizes = {labels.inputs[number][axis]: repeated[number].sizes[axis] for number, axes in gone.items() for axis in axes}
    blocks = {labels.inputs[number][axis] for number, axes in gone.items() for axis in axes if axis in repeated[number].blocks}
    for number, own in enumerate(labels.inputs):
        for axis, label in enumerate(own):
            if label in sizes and axis - len(own) not in gone.get(number, ()) and not is_size_one(work, node.inputs[number], axis):
                del sizes[label]
    return sizes, blocks


def through_reshape(node: ir.Node, work: Rewriting) -> bool:
    """A Reshape that leaves copies whole reshapes one copy; it may merge the repeated axis with those after it, or part them."""
    found = work.expansion(node.inputs[0])
    before, after = work.shape(node.inputs[0]), work.shape(node.outputs[0])
    target, base = node.inputs[1], work.shape(found.base) if found is not None else None
    if found is None or base is None or before is None or after is None or target is None or copies_nothing(node):
        return False
    entries: dict[int, ir.Value] = {}
    sizes: dict[int, ir.Value] = {}
    for axis, size in found.sizes.items():
        times = tuple(whole // one for whole, one in zip(before[axis], base[axis], strict=True))
        place = _place(before, after, axis + len(before), times)
        if place is None or place in entries:
            return False
        left = tuple(whole // time for whole, time in zip(after[place], times, strict=True))
        entry = const(work.piece(target, place)) if not is_fixed(left) else None
        if not is_fixed(left) and (entry is None or int(entry[0]) != -1):
            return False
        entries[place] = work.ints(left[0] if is_fixed(left) else -1)
        sizes[place - len(after)] = size
    blocks = frozenset(place - len(after) for place, entry in entries.items() if const(entry) != 1)
    made = work.emit("Reshape", [found.base, with_entries(target, entries, len(after), work)], node.attributes)
    work.replace(node.outputs[0], work.expand(made, sizes, len(after), blocks))
    return True


def _place(before: Shape, after: Shape, axis: int, times: Size) -> int | None:
    """The axis of the reshaped tensor that starts with the copies that `axis` of the original starts with, `times` of them."""
    ahead = product(before[:axis])
    for place, size in enumerate(after):
        if all(whole % time == 0 for whole, time in zip(size, times, strict=True)) and product(after[:place]) == ahead and not is_one(size):
            return place
    return None


def copies_nothing(node: ir.Node) -> bool:
    """Whether a Reshape asks for an axis of size 0 rather than, as usual with 0, for the size the axis has."""
    target = const(node.inputs[1])
    return bool(node.attributes.get_int("allowzero", 0)) and target is not None and bool((target == 0).any())


def same_place(before: Shape, after: Shape, axis: int) -> int | None:
    """The axis of the reshaped tensor that is `axis` of the original: of the same size, with as many elements before it."""
    ahead = product(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] and product(after[:place]) == ahead:
            return place
    return None


def with_entries(target: ir.Value, entries: Mapping[int, ir.Value], rank: int, work: Rewriting) -> ir.Value:
    """The shape `target`, a vector of `rank` numbers, with these entries (vectors of one) in place of its own."""
    return work.vector([entries[place] if place in entries else work.piece(target, place) for place in range(rank)])


def through_shape(node: ir.Node, work: Rewriting) -> bool:
    """The shape of something repeated is known without repeating it."""
    found, shape = work.expansion(node.inputs[0]), work.shape(node.inputs[0])
    if found is None or shape is None:
        return False
    rank = len(shape)
    start, end, _ = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", rank)).indices(rank)
    parts = []
    for axis in range(start, end):
        if axis - rank in found.sizes and axis - rank not in found.blocks:
            parts.append(found.sizes[axis - rank])
        elif axis - rank in found.sizes:
            parts.append(work.emit("Mul", [found.sizes[axis - rank], work.emit("Shape", [found.base], {"start": axis, "end": axis + 1})]))
        else:
            parts.append(work.emit("Shape", [found.base], {"start": axis, "end": axis + 1}))
    if not parts:
        return False
    work.replace(node.outputs[0], work.vector(parts))
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
    if outer is None or inner is None or inner.blocks:
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
