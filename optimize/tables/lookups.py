"""Embedding tables whose every reader is a lookup, so that their rows may be stored in another way."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from ...core.errors import RefusedStep, UnknownName
from ..fuse.edit import const_shape


class LookedUp(msgspec.Struct, kw_only=True):
    """A constant table `value` [rows, width], and the Gathers that take its rows by ids that are computed or given."""

    value: ir.Value
    rows: int
    width: int
    gathers: list[ir.Node]

    @property
    def name(self) -> str:
        return self.value.name or ""


def tables_to_change(model: ir.Model, *, min_rows: int, exclude: tuple[str, ...], where: str) -> tuple[list[LookedUp], list[str]]:
    """float32 tables of at least `min_rows` rows, and why others were left alone.

    Raises UnknownName for an excluded table that does not exist; RefusedStep when no table is left.
    """
    found, left = list[LookedUp](), list[str]()
    candidates = [table for value in model.graph.initializers.values() if (table := _looked_up(value, model)) is not None]
    for name in exclude:
        if name not in {table.name for table in candidates}:
            raise UnknownName(where, "table", name, [table.name for table in candidates])
    for table in candidates:
        others = [node for node, _ in table.value.uses() if node not in table.gathers]
        dtype = table.value.const_value.dtype if table.value.const_value is not None else None
        if table.name in exclude:
            left.append(f"{table.name} (excluded)")
        elif table.rows < min_rows:
            left.append(f"{table.name} ({table.rows} rows)")
        elif dtype is not ir.DataType.FLOAT:
            left.append(f"{table.name} ({'no type' if dtype is None else str(dtype).lower()} already)")
        elif others or table.value.is_graph_output():
            reader = f"'{others[0].name}' ({others[0].op_type})" if others else "the caller"
            left.append(f"{table.name} ({reader} reads all of it)")
        else:
            found.append(table)
    if not found:
        problem = f"no float32 table of {min_rows} rows and more to change" + (f": {', '.join(left[:5])}" if left else "")
        raise RefusedStep(where, problem, fix="lower min_rows" if left else "this model looks nothing up")
    return found, left


def _looked_up(value: ir.Value, model: ir.Model) -> LookedUp | None:
    shape = const_shape(value)
    if shape is None or len(shape) != 2 or value.is_graph_input():
        return None
    gathers = [node for node, position in value.uses() if position == 0 and _is_lookup(node) and node.graph is model.graph]
    return LookedUp(value=value, rows=shape[0], width=shape[1], gathers=list(dict.fromkeys(gathers))) if gathers else None


def _is_lookup(node: ir.Node) -> bool:
    plain = node.op_type == "Gather" and node.domain in {"", "ai.onnx"} and node.attributes.get_int("axis", 0) == 0
    return plain and const_shape(node.inputs[1]) is None
