"""Reads and writes at computed positions that come to something simpler."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .facts import WORLDS, is_one
from .rewriting import Rewriting


def identity(node: ir.Node, work: Rewriting) -> bool:
    """An Identity is what it reads, unless both have to be there as inputs and outputs of the graph."""
    value = node.inputs[0]
    if value is None or node.outputs[0].is_graph_output():
        return False
    work.replace(node.outputs[0], value)
    return True


def scatter_over_all(node: ir.Node, work: Rewriting) -> bool:
    """Writing to position 0 along an axis of size 1 replaces everything: PyTorch's `x[:, 0] = y` on such an axis."""
    data, index, updates = (work.shape(value) for value in node.inputs)
    axis = node.attributes.get_int("axis", 0)
    if data is None or index is None or updates != data or index != data or not is_one(data[axis % len(data)]):
        return False
    if node.attributes.get_string("reduction", "none") != "none" or not _zero(node.inputs[1]):
        return False
    written = node.inputs[2]
    if written is None:
        return False
    work.replace(node.outputs[0], written)
    return True


def _zero(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None and node.op_type in {"Expand", "Unsqueeze", "Reshape", "Squeeze"}:
        value = node.inputs[0]
    array = const(value)
    return array is not None and not np.any(array)


def gather_from_copies(node: ir.Node, work: Rewriting) -> bool:
    """`x[arange(rows), position]` where every row of x is the same: row 0 will do, `x[0, position]`."""
    found, index = work.expansion(node.inputs[0]), node.inputs[1]
    source = index.producer() if index is not None else None
    data, positions = work.shape(node.inputs[0]), work.shape(index)
    if found is None or source is None or data is None or positions is None or node.attributes.get_int("batch_dims", 0) != 0:
        return False
    rows = found.sizes.get(-len(data))
    if rows is None or found.blocks or source.op_type != "Concat" or len(positions) != 2 or positions[0] != data[0]:
        return False
    first = work.shape(source.inputs[0])
    if not _counts(source.inputs[0]):
        return False
    if source.attributes.get_int("axis", 0) not in {-1, 1} or first is None or not is_one(first[-1]):
        return False
    kept = {axis: size for axis, size in found.sizes.items() if axis != -len(data)}
    zero = work.expand(work.constant(np.zeros((1, 1), dtype=np.int64), "row"), {-2: rows}, 2)
    place = work.emit("Concat", [zero, *source.inputs[1:]], {"axis": -1})
    work.replace(node.outputs[0], work.again(node, [work.expand(found.base, kept, len(data)), place])[0])
    return True


def _counts(value: ir.Value | None) -> bool:
    """Whether `value` is 0, 1, 2, ... with axes of size 1."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in {*_VIEWS, "Cast"}:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    start = const(node.inputs[0]) if node is not None and node.op_type == "Range" else None
    step = const(node.inputs[2]) if node is not None and start is not None else None
    return start is not None and step is not None and int(start.reshape(-1)[0]) == 0 and int(step.reshape(-1)[0]) == 1


def gather_along_copies(node: ir.Node, work: Rewriting) -> bool:
    """Any entry along an axis of copies is the copy."""
    found, index, data = work.expansion(node.inputs[0]), work.shape(node.inputs[1]), work.shape(node.inputs[0])
    if found is None or index is None or len(index) != 1 or data is None or found.blocks or node.inputs[1] is None:
        return False
    axis = node.attributes.get_int("axis", 0) % len(data) - len(data)
    if axis not in found.sizes:
        return False
    size = work.emit("Shape", [node.inputs[1]], {"start": 0, "end": 1})
    work.facts.learn(size, ((1,) * WORLDS,))
    work.replace(node.outputs[0], work.expand(found.base, {**found.sizes, axis: size}, len(data)))
    return True


def split_constant(node: ir.Node, work: Rewriting) -> bool:
    """The parts of a constant are constants."""
    array, sizes = const(node.inputs[0]), const(node.inputs[1]) if len(node.inputs) > 1 else None
    if array is None or sizes is None:
        return False
    parts = np.split(array, np.cumsum(sizes)[:-1], axis=node.attributes.get_int("axis", 0))
    for old, part in zip(node.outputs, parts, strict=True):
        work.replace(old, work.constant(np.ascontiguousarray(part), "part"))
    return True


def transpose_constant(node: ir.Node, work: Rewriting) -> bool:
    """A constant that is turned is another constant."""
    array, order = const(node.inputs[0]), node.attributes.get_ints("perm", None)
    if array is None:
        return False
    work.replace(node.outputs[0], work.constant(np.ascontiguousarray(np.transpose(array, order)), "turned"))
    return True


# Whole numbers up to here are float32 numbers too.
_WHOLE_FLOATS = 2**24
_VIEWS = frozenset({"Unsqueeze", "Squeeze", "Reshape"})


def ids_through_float(node: ir.Node, work: Rewriting) -> bool:
    """Ids that became float and ids again, to be looked up in a table: the same ids wherever they lie inside it, and outside as before.

    DeepCTR carries ids in a float matrix. A whole number below 2^24 survives the way; a larger one stays outside every table this small.
    """
    data, value = const(node.inputs[0]), node.inputs[1]
    back = value.producer() if value is not None else None
    if data is None or node.attributes.get_int("axis", 0) != 0 or len(data) > _WHOLE_FLOATS or back is None or back.op_type != "Cast":
        return False
    views: list[ir.Node] = []
    source = back.inputs[0].producer() if back.inputs[0] is not None else None
    while source is not None and source.op_type in _VIEWS:
        views.append(source)
        source = source.inputs[0].producer() if source.inputs[0] is not None else None
    if source is None or source.op_type != "Cast" or source.attributes.get_int("to", 0) != ir.DataType.FLOAT:
        return False
    ids = source.inputs[0]
    if ids is None or ids.dtype not in {ir.DataType.INT64, ir.DataType.INT32}:
        return False
    for view in reversed(views):
        ids = work.again(view, [ids, *view.inputs[1:]])[0]
    work.replace(node.outputs[0], work.again(node, [node.inputs[0], ids])[0])
    return True
