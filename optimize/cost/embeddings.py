"""Embedding tables of a graph: constants that rows are looked up in, and the inputs that say which rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import onnx_ir as ir

from .dependence import Flow

_LOOKUPS = frozenset({"Gather", "GatherND", "GatherBlockQuantized"})
# What a table may pass through before rows are looked up in it.
_KEEPS_ROWS = frozenset({"Cast", "DequantizeLinear", "Identity"})


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of `rows` vectors of `width` numbers; `indexed_by` are inputs, none for positions and the like."""

    name: str
    rows: int
    width: int
    dtype: str
    size_bytes: int
    indexed_by: tuple[str, ...]


def tables_of(model: ir.Model, flow: Flow, order: Sequence[str]) -> tuple[Table, ...]:
    """Tables of a graph, the largest first; inputs that index one are listed as in `order`."""
    indices: dict[ir.Value, set[str]] = {}
    axes: dict[ir.Value, int] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type not in _LOOKUPS or len(node.inputs) < 2 or node.inputs[1] is None:
            continue
        table, axis = _table(node.inputs[0]), node.attributes.get_int("axis", node.attributes.get_int("gather_axis", 0))
        if table is None or not _is_looked_up(table, node.inputs[1], flow):
            continue
        indices.setdefault(table, set()).update(flow.inputs_of(node.inputs[1]))
        axes.setdefault(table, axis)
    found = [_described(table, axes[table], tuple(name for name in order if name in indices[table])) for table in indices]
    return tuple(sorted(found, key=lambda table: (-table.size_bytes, table.name)))


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all constants, those of subgraphs and of Constant nodes included."""
    graphs = {id(model.graph): model.graph}
    total = 0
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.graph is not None and isinstance(node.graph, ir.Graph):
            graphs.setdefault(id(node.graph), node.graph)
        constant = ir.convenience.get_const_tensor(node.outputs[0]) if node.op_type == "Constant" else None
        total += constant.nbytes if constant is not None else 0
    return total + sum(v.const_value.nbytes for graph in graphs.values() for v in graph.initializers.values() if v.const_value is not None)


def _table(value: ir.Value | None) -> ir.Value | None:
    """The constant that `value` is, or was before its numbers were only converted."""
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is not None and node.op_type == "Constant":
            return value
        if node is None or node.op_type not in _KEEPS_ROWS:
            return None
        value = node.inputs[0]
    return value


def _is_looked_up(table: ir.Value, index: ir.Value, flow: Flow) -> bool:
    """A shape or a list of axes is a constant too, but a vector of integers; and rows picked for good are no lookup."""
    content = ir.convenience.get_const_tensor(table)
    if content is None or not len(content.shape) or (len(content.shape) == 1 and not content.dtype.is_floating_point()):
        return False
    origin = flow.origins[index]
    return bool(origin.numbers) or origin.counted


def _described(table: ir.Value, axis: int, indexed_by: tuple[str, ...]) -> Table:
    content = ir.convenience.get_const_tensor(table)
    if content is None:
        raise AssertionError("a table is a constant")
    sizes = [int(size) for size in content.shape.numpy()]
    rows = sizes.pop(axis)
    dtype = str(content.dtype.numpy())
    return Table(name=table.name or "", rows=rows, width=math.prod(sizes), dtype=dtype, size_bytes=content.nbytes, indexed_by=indexed_by)
