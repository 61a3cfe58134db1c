"""Moving a Concat of repeated and other values below the operations after it, so that the repetition can go on its way down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .expands import copies_nothing, with_entries
from .facts import Shape, Size, is_fixed, is_one, product, usual
from .label import Label, axes_of
from .labels import labels_of
from .rewriting import Rewriting, is_constant

# Operations that move no numbers, or only so that the next one gets at them: worth it whatever they cost.
_FREE = frozenset({"Cast", "Identity", "Squeeze", "Unsqueeze", "Transpose"})
# Elements that need not be computed any more before two small operations are better than a large one.
_WORTH = 8192


class _Pieces:
    """A Concat whose parts are partly the same for many rows; neighbours of one kind stay together."""

    def __init__(self, node: ir.Node, axis: int, parts: list[list[ir.Value]], widths: list[int]) -> None:
        self.node, self.axis, self.parts, self.widths = node, axis, parts, widths

    def values(self, work: Rewriting) -> list[ir.Value]:
        """One value per group."""
        return [group[0] if len(group) == 1 else work.emit("Concat", group, {"axis": self.axis}) for group in self.parts]


def _pieces(value: ir.Value | None, work: Rewriting) -> _Pieces | None:
    node = value.producer() if value is not None else None
    shape = work.shape(value)
    if node is None or node.op_type != "Concat" or node.domain != "" or shape is None:
        return None
    axis = node.attributes.get_int("axis", 0) % len(shape)
    groups: list[list[ir.Value]] = []
    widths: list[int] = []
    last: frozenset[int] | None = None
    for part in node.inputs:
        size = (work.shape(part) or ())[axis : axis + 1]
        if part is None or not size or not is_fixed(size[0]):
            return None
        found = work.expansion(part)
        kind = frozenset(found.sizes) - {axis - len(shape)} if found is not None else frozenset()
        if groups and kind == last:
            groups[-1].append(part)
            widths[-1] += size[0][0]
        else:
            groups.append([part])
            widths.append(size[0][0])
        last = kind
    return _Pieces(node, axis, groups, widths) if len(groups) > 1 else None


def of_concat(node: ir.Node, work: Rewriting) -> bool:
    """A Concat of Concats along one axis is one Concat."""
    shape = work.shape(node.outputs[0])
    if shape is None:
        return False
    axis = node.attributes.get_int("axis", 0) % len(shape)
    parts: list[ir.Value | None] = []
    for value in node.inputs:
        inner = value.producer() if value is not None else None
        nested = inner is not None and inner.op_type == "Concat" and inner.attributes.get_int("axis", 0) % len(shape) == axis
        parts.extend(inner.inputs if nested and inner is not None and _pieces(value, work) is not None else [value])
    if len(parts) == len(node.inputs):
        return False
    work.replace(node.outputs[0], work.again(node, parts)[0])
    return True


def through_operation(node: ir.Node, work: Rewriting) -> bool:
    """f(concat(a, b)) = concat(f(a), f(b)) where f does not mix the axis and a is repeated while b is not."""
    carriers = [number for number, value in enumerate(node.inputs) if _pieces(value, work) is not None]
    labels = labels_of(node, work) if carriers else None
    if labels is None or len(node.outputs) != 1:
        return False
    first = _pieces(node.inputs[carriers[0]], work)
    if first is None or not labels.inputs[carriers[0]] or not _worth(node, first, work):
        return False
    label = labels.inputs[carriers[0]][first.axis]
    if label is None or label not in labels.outputs[0]:
        return False
    columns = [_column(node, value, own, label, first, work=work) for value, own in zip(node.inputs, labels.inputs, strict=True)]
    if any(column is None for column in columns):
        return False
    results = [work.again(node, [column[i] for column in columns if column is not None])[0] for i in range(len(first.parts))]
    made = work.emit("Concat", results, {"axis": labels.outputs[0].index(label) - len(labels.outputs[0])})
    work.replace(node.outputs[0], made)
    return True


def _column(
    node: ir.Node, value: ir.Value | None, own: tuple[Label, ...], label: Label, first: _Pieces, *, work: Rewriting
) -> Sequence[ir.Value | None] | None:
    """What an input with these labels is for each group; None where it cannot be cut like the Concat."""
    count = len(first.parts)
    if value is first.node.outputs[0]:
        return first.values(work)
    if value is None or label not in own:
        return [value] * count
    axis, shape = own.index(label), work.shape(value)
    if shape is not None and is_one(shape[axis]):
        return [value] * count
    array = const(value)
    if array is None or node.op_type == "Concat":
        return None
    ends = np.cumsum(first.widths)[:-1]
    return [work.constant(np.ascontiguousarray(part), "part") for part in np.split(array, ends, axis=axis)]


def _worth(node: ir.Node, pieces: _Pieces, work: Rewriting) -> bool:
    if any(value is not pieces.node.outputs[0] and not is_constant(value) for value in node.inputs if value is not None):
        return False
    if node.op_type in _FREE:
        return True
    saved = 0
    for group in pieces.parts:
        found = work.expansion(group[0])
        if found is not None:
            saved += sum(_elements(work.shape(part)) for part in group) - sum(_elements_of_base(part, work) for part in group)
    return saved >= _WORTH


def _elements(shape: Shape | None) -> int:
    return usual(product(shape)) if shape is not None else 0


def _elements_of_base(value: ir.Value, work: Rewriting) -> int:
    found = work.expansion(value)
    return _elements(work.shape(found.base if found is not None else value))


def through_reshape(node: ir.Node, work: Rewriting) -> bool:
    """A Reshape that keeps the axis of a Concat, or merges it with those after it: the parts are reshaped and put side by side."""
    pieces, target = _pieces(node.inputs[0], work), node.inputs[1]
    before, after = work.shape(node.inputs[0]), work.shape(node.outputs[0])
    if pieces is None or before is None or after is None or target is None or copies_nothing(node):
        return False
    whole, ahead = before[pieces.axis], product(before[: pieces.axis])
    place = next((p for p, size in enumerate(after) if product(after[:p]) == ahead and _times(size, whole) is not None), None)
    times = _times(after[place], whole) if place is not None else None
    if place is None or times is None or _larger(after[:place]) != _larger(before[: pieces.axis]):
        return False  # rows merged with a sequence: see flattening
    parts = []
    for value, width in zip(pieces.values(work), pieces.widths, strict=True):
        shape = with_entries(target, {place: work.ints(width * times)}, len(after), work)
        parts.append(work.emit("Reshape", [value, shape], node.attributes))
    work.replace(node.outputs[0], work.emit("Concat", parts, {"axis": place - len(after)}))
    return True


def _larger(shape: Shape) -> Shape:
    """The axes that are not 1."""
    return tuple(size for size in shape if not is_one(size))


def _times(size: Size, whole: Size) -> int | None:
    """How often `whole` goes into `size`, where both are fixed."""
    if not is_fixed(size) or not is_fixed(whole) or size[0] % whole[0]:
        return None
    return size[0] // whole[0] or None


def sum_over(node: ir.Node, work: Rewriting) -> bool:
    """The sum along the axis of a Concat is the sum of its parts' sums."""
    pieces, axes, shape = _pieces(node.inputs[0], work), axes_of(node), work.shape(node.inputs[0])
    if pieces is None or axes is None or shape is None or [axis % len(shape) for axis in axes] != [pieces.axis]:
        return False
    parts = [work.again(node, [value, *node.inputs[1:]])[0] for value in pieces.values(work)]
    total = parts[0]
    for part in parts[1:]:
        total = work.emit("Add", [total, part])
    work.replace(node.outputs[0], total)
    return True


def slice_of(node: ir.Node, work: Rewriting) -> bool:
    """A slice of a Concat that lies within one of its parts is a slice of that part, or the part itself."""
    value = node.inputs[0]
    concat = value.producer() if value is not None else None
    shape, cut = work.shape(value), cut_of(node, work)
    if concat is None or concat.op_type != "Concat" or shape is None or cut is None:
        return False
    axis, start, end = cut
    if axis != concat.attributes.get_int("axis", 0) % len(shape):
        return False
    offset = 0
    for part in concat.inputs:
        size = (work.shape(part) or ())[axis : axis + 1]
        if part is None or not size or not is_fixed(size[0]):
            return False
        width = size[0][0]
        if offset <= start and end <= offset + width:
            inner = [part, work.ints(start - offset), work.ints(end - offset), work.ints(axis)]
            work.replace(node.outputs[0], part if end - start == width else work.emit("Slice", inner))
            return True
        offset += width
    return False


def cut_of(node: ir.Node, work: Rewriting) -> tuple[int, int, int] | None:
    """Axis, start and end of a Slice with constant bounds along one axis of fixed size, step 1; None for any other."""
    shape = work.shape(node.inputs[0])
    starts, ends, axes = (const(value) for value in (*node.inputs[1:4], None, None, None)[:3])
    steps = const(node.inputs[4]) if len(node.inputs) > 4 and node.inputs[4] is not None else np.ones(1)
    if shape is None or starts is None or ends is None or axes is None or steps is None:
        return None
    if starts.size != 1 or axes.size != 1 or int(steps.reshape(-1)[0]) != 1:
        return None
    axis = int(axes.reshape(-1)[0]) % len(shape)
    if not is_fixed(shape[axis]):
        return None
    start, end, _ = slice(int(starts.reshape(-1)[0]), int(ends.reshape(-1)[0])).indices(shape[axis][0])
    return (axis, start, end) if end > start else None
