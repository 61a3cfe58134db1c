"""Embedding tables in 16, 8 or 4 bits, row by row: a recipe for memory."""

from __future__ import annotations

import numpy as np

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import CompressTables
from ...runtime.onnx_file import load
from ..context import StepContext
from ..convert.onnx_graph import opset_of, save
from ..tables.formats import Stored, row_errors, stored
from ..tables.lookup_time import lookup_times
from ..tables.lookups import tables_to_change
from ..tables.read_rows import store

_BITWISE_OPSET = 18


def compress_tables(step: CompressTables, context: StepContext) -> StepRecord:
    """Store every table of `min_rows` rows and more in `format`; rows are restored after they were looked up.

    Raises RefusedStep when there is no such table, when a table becomes no smaller, and for int4 before opset 18, which brought the
    operator that takes bytes apart; UnknownName for an excluded table that does not exist.
    """
    where = f"compress tables of {context.where}"
    model = load(context.source, where)
    if step.format == "int4" and opset_of(model) < _BITWISE_OPSET:
        raise RefusedStep(
            where, f"int4 needs opset {_BITWISE_OPSET}, the model has {opset_of(model)}", fix="use int8, or export the model again"
        )
    tables, left = tables_to_change(model, min_rows=step.min_rows, exclude=step.exclude, where=where)
    changed, errors, lines = list[tuple[np.ndarray, Stored]](), list[np.ndarray](), list[str]()
    for table in tables:
        content = table.value.const_value
        numbers = np.asarray(content.numpy()) if content is not None else np.empty((0, 0), np.float32)
        kept = stored(numbers, step.format)
        if kept is None:
            left.append(f"{table.name} (numbers that {step.format} cannot hold)")
        elif kept.nbytes >= numbers.nbytes:
            left.append(f"{table.name} (no smaller: {table.width} numbers per row)")
        else:
            changed.append((numbers, kept))
            errors.append(row_errors(numbers, kept))
            lines.append(f"{table.name} {table.rows} x {table.width}")
            store(model, table, kept)
    if not changed:
        raise RefusedStep(where, f"no table can be stored as {step.format}: {', '.join(left[:5])}", fix="try fp16, or leave this step out")
    save(model, context.target)
    before, after = (float(sum(sizes)) / 2**20 for sizes in ([one.nbytes for one, _ in changed], [kept.nbytes for _, kept in changed]))
    slow, fast = lookup_times(changed)
    every = np.concatenate(errors)
    worst, mean = float(every.max()), float(every.mean())
    parts = [
        f"{len(changed)} tables as {step.format} ({', '.join(lines[:8])}{', ...' if len(lines) > 8 else ''})",
        f"{before:.2f} -> {after:.2f} MiB",
        f"relative error of a row {mean:.2g} on average, {worst:.2g} at worst",
        f"looking 256 rows up in each: {slow:.0f} -> {fast:.0f} us on this machine",
    ]
    if left:
        parts.append(f"left alone: {', '.join(left[:5])}")
    return StepRecord(
        kind="compress_tables",
        settings={"format": step.format, "min_rows": step.min_rows, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={
            "tables_mib_before": before,
            "tables_mib_after": after,
            "worst_row_error": worst,
            "mean_row_error": mean,
            "lookup_us_before": slow,
            "lookup_us_after": fast,
        },
    )
