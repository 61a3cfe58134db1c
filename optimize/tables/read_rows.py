"""Looking rows up in tables of other formats, with ONNX's own operators, so that an id outside its table fails as in any Gather."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..fuse.edit import constant, insert, replace
from .formats import Half, Scaled, Stored
from .lookups import LookedUp


def store(model: ir.Model, table: LookedUp, kept: Stored) -> None:
    """Let every lookup in `table` read it in the form `kept`, in place; the old table is dropped."""
    if isinstance(kept, Half):
        numbers = constant(model, kept.numbers, f"{table.name}_fp16")
        for node in table.gathers:
            replace(node, "Cast", [_rows(node, numbers)], {"to": int(ir.DataType.FLOAT)})
    else:
        codes, scale = constant(model, kept.codes, f"{table.name}_codes"), constant(model, kept.scale, f"{table.name}_scale")
        offset = None if kept.offset is None else constant(model, kept.offset, f"{table.name}_offset")
        for node in table.gathers:
            _scaled(model, node, kept, codes=codes, scale=scale, offset=offset)
    if not table.value.uses():
        model.graph.initializers.pop(table.name)


def _scaled(model: ir.Model, node: ir.Node, kept: Scaled, *, codes: ir.Value, scale: ir.Value, offset: ir.Value | None) -> None:
    rows = _rows(node, codes)
    if kept.packed:
        lower = insert(node, "BitwiseAnd", [rows, constant(model, np.asarray(15, np.uint8), "lower_bits")])
        upper = insert(node, "BitShift", [rows, constant(model, np.asarray(4, np.uint8), "four")], {"direction": "RIGHT"})
        rows = insert(node, "Concat", [lower, upper], {"axis": -1})
        if kept.width % 2:
            ends = [constant(model, np.asarray([end], np.int64), "columns") for end in (0, kept.width, -1)]
            rows = insert(node, "Slice", [rows, *ends])
    numbers = insert(node, "Cast", [rows], {"to": int(ir.DataType.FLOAT)})
    if offset is None:
        replace(node, "Mul", [numbers, _rows(node, scale)])
    else:
        replace(node, "Add", [insert(node, "Mul", [numbers, _rows(node, scale)]), _rows(node, offset)])


def _rows(node: ir.Node, table: ir.Value) -> ir.Value:
    return insert(node, "Gather", [table, node.inputs[1]], {"axis": 0})
