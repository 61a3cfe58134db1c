"""What a graph computes of one id alone: rows looked up with it, and everything done to each of those rows for itself."""

from __future__ import annotations

import math

import msgspec
import onnx_ir as ir

from ..fuse.dims import Dims, dims_of, same
from ..fuse.edit import const, const_shape, given
from ..fuse.linear import linear_of
from ..fuse.operators import is_elementwise

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})
_ALONG_AXIS = frozenset({"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "LpNormalization"})
_REDUCTIONS = frozenset({"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceL1", "ReduceProd", "ReduceSumSquare"})
# An elementwise operation reads and writes memory for each number: as long as that many FLOPs of a matrix product take.
ELEMENT_FLOPS = 16


class Row(msgspec.Struct, frozen=True):
    """A value that is one row per id: its last `axes` axes, of `width` numbers together, belong to one id.

    The axes in front hold the ids in the order of `PerId.ids`, maybe under another
    shape.
    """

    axes: int
    width: int


class PerId(msgspec.Struct, kw_only=True):
    """All values that depend on `ids` alone, through tables of `vocabulary` rows; `nodes` compute them, in graph order."""

    ids: ir.Value
    vocabulary: int
    rows: dict[ir.Value, Row]
    nodes: list[ir.Node]

    def ends(self) -> list[ir.Value]:
        """Values that something else reads, and that more than a lookup gives."""
        inside = set(self.nodes)

        def outside(value: ir.Value) -> bool:
            return value.is_graph_output() or any(user not in inside for user, _ in value.uses())

        return [node.outputs[0] for node in self.nodes if node.op_type != "Gather" and outside(node.outputs[0])]

    def way_to(self, value: ir.Value) -> list[ir.Node]:
        """The nodes that compute `value`, in graph order."""
        needed, pending = set[ir.Node](), [value]
        while pending:
            node = pending.pop().producer()
            if node is not None and node not in needed and node.outputs[0] in self.rows:
                needed.add(node)
                pending.extend(one for one in node.inputs if one is not None)
        return [node for node in self.nodes if node in needed]

    def work(self, node: ir.Node) -> int:
        """What a node costs per id, in FLOPs of a matrix product; moving numbers about is none, and neither is converting them."""
        width = self.rows[node.outputs[0]].width
        layer = linear_of(node)
        if layer is not None:
            return 2 * width * int(layer.weight.shape[0])
        return 0 if node.op_type in _VIEWS | {"Gather", "Concat", "Identity", "Cast"} else ELEMENT_FLOPS * width


def per_ids(model: ir.Model) -> list[PerId]:
    """One for every tensor of ids that is looked up in constant tables of one length; shapes have to be known (`refresh`)."""
    found: dict[tuple[ir.Value, int], PerId] = {}
    for node in model.graph:
        ids, rows = _lookup(node)
        if ids is not None:
            found.setdefault((ids, rows), PerId(ids=ids, vocabulary=rows, rows={}, nodes=[]))
    for part in found.values():
        for node in model.graph:
            row = _row(node, part)
            if row is not None:
                part.rows[node.outputs[0]] = row
                part.nodes.append(node)
    return list(found.values())


def _lookup(node: ir.Node) -> tuple[ir.Value | None, int]:
    """The ids and the number of rows of a lookup in a constant table of floats."""
    if node.op_type != "Gather" or node.domain not in {"", "ai.onnx"} or node.attributes.get_int("axis", 0) != 0:
        return None, 0
    shape, ids = const_shape(node.inputs[0]), node.inputs[1]
    tensor = ir.convenience.get_const_tensor(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None or tensor is None or not tensor.dtype.is_floating_point() or len(shape) < 1 or ids is None:
        return None, 0
    return (None, 0) if const_shape(ids) is not None or dims_of(ids) is None else (ids, shape[0])


def _row(node: ir.Node, part: PerId) -> Row | None:
    """What `node` gives per id, None when it reads anything else than rows of `part` and constants, or mixes rows."""
    ids, vocabulary = _lookup(node)
    if ids is part.ids and vocabulary == part.vocabulary:
        rest = (const_shape(node.inputs[0]) or ())[1:]
        return Row(len(rest), math.prod(rest))
    if node.domain not in {"", "ai.onnx"} or len(node.outputs) != 1:
        return None
    computed = [value for value in node.inputs if value is not None and const_shape(value) is None]
    known = [part.rows.get(value) for value in computed]
    dims, rank = dims_of(node.outputs[0]), len(dims_of(computed[0]) or ()) if computed else 0
    row = known[0] if known else None
    if row is None or dims is None or not rank or not _alike(computed, known):
        return None
    front = rank - row.axes
    axes = row.axes
    if is_elementwise(node) or node.op_type == "Clip":
        fits = all(_behind(value, front, rank) for value in node.inputs if value is not None and const_shape(value) is not None)
    elif node.op_type in {"MatMul", "Gemm"}:
        fits = linear_of(node) is not None and axes >= 1 and front >= 1 and (node.op_type == "MatMul" or (rank, axes) == (2, 1))
    elif node.op_type in _ALONG_AXIS:
        fits = node.attributes.get_int("axis", -1) % rank >= front and node.op_type != "Hardmax"
    elif node.op_type == "Concat":
        fits = node.attributes.get_int("axis", 0) % rank >= front and len(computed) == len(node.inputs)
    elif node.op_type in _REDUCTIONS:
        reduced = const(given(node, 1))
        fits = reduced is not None and reduced.size > 0 and all(int(axis) % rank >= front for axis in reduced)
        axes -= 0 if node.attributes.get_int("keepdims", 1) or reduced is None else int(reduced.size)
    elif node.op_type in _VIEWS:
        return _viewed(row, dims, part)
    else:
        fits = False
    sizes = dims[len(dims) - axes :]
    if not fits or not all(isinstance(size, int) for size in sizes):
        return None
    return Row(axes, math.prod(size for size in sizes if isinstance(size, int)))


def _alike(values: list[ir.Value], rows: list[Row | None]) -> bool:
    """Whether these hold the same ids in the same places."""
    shapes = [dims_of(value) for value in values]
    first, start = shapes[0], rows[0]
    if start is None or first is None:
        return False
    front = first[: len(first) - start.axes]
    return all(
        row is not None and row.axes == start.axes and shape is not None and same(shape[: len(shape) - row.axes], front)
        for row, shape in zip(rows, shapes, strict=True)
    )


def _behind(value: ir.Value, front: int, rank: int) -> bool:
    """Whether a constant differs only along axes that belong to one id."""
    shape = const_shape(value) or ()
    return len(shape) <= rank and all(size == 1 for size in shape[: max(0, len(shape) - (rank - front))])


def _viewed(row: Row, dims: Dims, part: PerId) -> Row | None:
    """The same rows under another shape: the ids' own axes in front where they still are, else as few axes per id as hold a row."""
    ids = dims_of(part.ids) or ()
    candidates = [len(dims) - len(ids)] if dims[: len(ids)] == ids else []
    for axes in [*candidates, *range(len(dims))]:
        sizes = dims[len(dims) - axes :]
        if all(isinstance(size, int) for size in sizes) and math.prod(size for size in sizes if isinstance(size, int)) == row.width:
            return Row(axes, row.width)
    return None
