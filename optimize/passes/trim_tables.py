"""Vocabulary trimming: rows of embedding tables that no request asks for share one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import TrimTables
from ...runtime.onnx_file import load
from ..context import StepContext
from ..convert.onnx_graph import save
from ..fuse.edit import constant, insert
from ..tables.lookups import LookedUp, tables_to_change
from ..tables.requested import requested_rows

_FEWEST_REQUESTS = 100


class _Use(msgspec.Struct, kw_only=True):
    """How often each row of a table is asked for, int64 [rows], by two halves of the requests: every other one."""

    learnt: np.ndarray
    held_out: np.ndarray

    @property
    def requested(self) -> np.ndarray:
        """Rows that any request asks for, bool [rows]."""
        return np.asarray(self.learnt + self.held_out > 0)

    @property
    def cold_share(self) -> float:
        """The share of one half's lookups that would meet the cold row if only the other half were known."""
        total = int(self.held_out.sum())
        return float(self.held_out[self.learnt == 0].sum()) / total if total else 0.0


def trim_tables(step: TrimTables, context: StepContext) -> StepRecord:
    """Keep the rows that the requests ask for; all others become one row, found through a map of the original length.

    An id outside the original vocabulary fails as before. How often new requests will meet the cold row is measured on one half of the
    requests with the rows that the other half asks for. Raises RefusedStep without requests or with fewer than 100, where that share is
    above `max_cold`, and where no table becomes smaller.
    """
    where = f"trim tables of {context.where}"
    model = load(context.source, where)
    if context.requests is None:
        raise RefusedStep(where, "needs real requests to see which rows are asked for", fix="add --requests FILE")
    count = len(context.requests)
    if count < _FEWEST_REQUESTS:
        raise RefusedStep(where, f"{count} requests say too little about which rows are asked for", fix=f"give {_FEWEST_REQUESTS} and more")
    tables, left = tables_to_change(model, min_rows=step.min_rows, exclude=step.exclude, where=where)
    uses = _uses(model, tables, context, count)
    lookups = sum(int(use.held_out.sum()) for use in uses)
    cold = sum(use.cold_share * int(use.held_out.sum()) for use in uses) / max(lookups, 1)
    if cold > step.max_cold:
        worst = max(range(len(tables)), key=lambda number: uses[number].cold_share)
        problem = (
            f"{cold:.2%} of {lookups} lookups would meet a cold row, more than {step.max_cold:.2%} (most in '{tables[worst].name}': "
            f"{uses[worst].cold_share:.2%}), measured on {count // 2} requests with the rows of {count - count // 2} others"
        )
        raise RefusedStep(where, problem, fix="give more requests, exclude that table, or raise max_cold")
    lines, saved, kept_rows, all_rows = list[str](), 0, 0, 0
    for table, use in zip(tables, uses, strict=True):
        smaller = _trim(model, table, use.requested, step)
        if smaller <= 0:
            left.append(f"{table.name} (no smaller: {int(use.requested.sum())} of {table.rows} rows are asked for)")
            continue
        saved, kept_rows, all_rows = saved + smaller, kept_rows + int(use.requested.sum()), all_rows + table.rows
        lines.append(f"{table.name} {table.rows} -> {int(use.requested.sum())} rows")
    if not lines:
        raise RefusedStep(where, f"no table becomes smaller: {', '.join(left[:5])}", fix="leave this step out for this model")
    save(model, context.target)
    parts = [f"{', '.join(lines[:8])} and a cold one ({step.cold})", f"{saved / 2**20:.2f} MiB saved"]
    parts.append(f"{cold:.2%} of held-out lookups meet a cold row")
    if left:
        parts.append(f"left alone: {', '.join(left[:5])}")
    return StepRecord(
        kind="trim_tables",
        settings={"cold": step.cold, "max_cold": step.max_cold, "min_rows": step.min_rows, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={
            "rows_before": float(all_rows),
            "rows_kept": float(kept_rows),
            "mib_saved": saved / 2**20,
            "cold_share": cold,
            "requests": float(count),
        },
    )


def _uses(model: ir.Model, tables: Sequence[LookedUp], context: StepContext, count: int) -> list[_Use]:
    uses = [_Use(learnt=np.zeros(table.rows, np.int64), held_out=np.zeros(table.rows, np.int64)) for table in tables]
    for number, rows in enumerate(requested_rows(model, list(tables), context.feeds(count))):
        for use, asked in zip(uses, rows, strict=True):
            np.add.at(use.held_out if number % 2 else use.learnt, asked, 1)
    return uses


def _trim(model: ir.Model, table: LookedUp, requested: np.ndarray, step: TrimTables) -> int:
    """Store only the requested rows and the cold one, where that with its map is smaller; gives the bytes saved."""
    content = table.value.const_value
    if content is None:
        raise AssertionError("a table is a constant")
    numbers = np.asarray(content.numpy())
    kept = requested.copy()
    if step.cold == "padding":
        kept[0] = True
    rows = int(kept.sum())
    size = numbers.itemsize * table.width
    saved = numbers.nbytes - (rows + (step.cold == "mean")) * size - table.rows * np.dtype(np.int32).itemsize
    if saved <= 0:
        return 0
    places = np.zeros(table.rows, np.int32)
    places[kept] = np.arange(rows, dtype=np.int32)
    small = numbers[kept]
    if step.cold == "mean":
        places[~kept] = rows
        small = np.concatenate([small, numbers[~kept].mean(axis=0, keepdims=True, dtype=np.float64).astype(numbers.dtype)])
    map_, stored = constant(model, places, f"{table.name}_row"), constant(model, small, f"{table.name}_kept")
    for node in table.gathers:
        node.replace_input_with(1, insert(node, "Gather", [map_, node.inputs[1]], {"axis": 0}))
        node.replace_input_with(0, stored)
    model.graph.initializers.pop(table.name)
    return int(saved)
