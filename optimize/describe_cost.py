"""A model's cost as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.markup import escape
from rich.table import Table as Grid

from .cost import Cost, NodeCost, Split
from .drawing import digits_text, drawn, shape_text, size_text, wrapped
from .embeddings import Table

_COSTLIEST = 8
_UNKNOWN_SHOWN = 5
_CLASSES = {"request": "request-only", "candidate": "per-candidate", "constant": "constant"}


def cost_text(cost: Cost, width: int) -> str:
    """What a request costs, split by what depends on the request only, and the nodes that cost most."""
    parts = [wrapped(headline(cost), width)]
    if cost.roles_known:
        parts.append(_split_table(cost, width))
    else:
        parts.append(wrapped(f"{size_text(cost.bytes.total)} read and written by its nodes", width))
        parts.append(wrapped(_ROLES_UNKNOWN, width))
    if costliest := cost.costliest(_COSTLIEST):
        parts.append("\n" + _nodes_table(costliest, cost, width))
    if cost.unknown:
        parts.append(wrapped(_unknown_text(cost.unknown), width))
    parts.extend(wrapped(note, width) for note in cost.notes)
    return "\n".join(parts)


_ROLES_UNKNOWN = (
    "Roles are unknown: every input counts as a candidate input, so a split into request-only and per-candidate work would mean nothing. "
    "Add --requests FILE or --request-inputs A,B."
)


def headline(cost: Cost) -> str:
    """`12.3 MFLOP per request of 256 candidates: 10.1 MFLOP request-only (40 kFLOP if done once), 2.2 MFLOP per-candidate work`."""
    flops = cost.flops
    sizes = "".join(f", {name} = {size}" for name, size in cost.sizes.dims.items())
    least = "at least " if flops.uncounted else ""
    text = f"{least}{flop_text(flops.total)} per request of {cost.sizes.candidates:,} candidate{'s' * (cost.sizes.candidates != 1)}{sizes}"
    if not cost.roles_known:
        return text
    parts = [f"{flop_text(flops.request)} request-only ({flop_text(flops.request_once)} if done once)"]
    parts.append(f"{flop_text(flops.candidate)} per-candidate work")
    if flops.constant:
        parts.append(f"{flop_text(flops.constant)} constant")
    return f"{text}: {', '.join(parts)}"


def tables_text(tables: Sequence[Table], width: int) -> str:
    """One line per embedding table."""
    grid = Grid(title="Embedding tables", title_justify="left")
    grid.add_column("table", overflow="fold")
    for column in ("rows", "width", "dtype", "size"):
        grid.add_column(column, justify="left" if column == "dtype" else "right", no_wrap=True)
    grid.add_column("indexed by", overflow="fold")
    for table in tables:
        by = ", ".join(table.indexed_by) or "sizes only"
        cells = (table.name, f"{table.rows:,}", f"{table.width:,}", table.dtype, size_text(table.size_bytes), by)
        grid.add_row(*(escape(cell) for cell in cells))
    return drawn(grid, width)


def flop_text(flops: int) -> str:
    """`950 FLOP`, `12.3 MFLOP`."""
    return f"{_count_text(flops)}FLOP"


def _count_text(count: int) -> str:
    """`950 `, `12.3 M`."""
    for unit, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * factor:
            return f"{digits_text(count / factor)} {unit}"
    return f"{count} "


def _split_table(cost: Cost, width: int) -> str:
    grid = Grid()
    grid.add_column("work")
    for column in ("FLOP", "done once", "bytes moved", "done once"):
        grid.add_column(column, justify="right", no_wrap=True)
    for label, today, once in (
        ("request-only", lambda s: s.request, lambda s: s.request_once),
        ("per-candidate", lambda s: s.candidate, lambda s: s.candidate),
        ("constant", lambda s: s.constant, lambda s: s.constant),
        ("total", lambda s: s.total, lambda s: s.total_once),
    ):
        _split_row(grid, label, today, once, cost)
    return drawn(grid, width)


def _split_row(grid: Grid, label: str, today: Callable[[Split], int], once: Callable[[Split], int], cost: Cost) -> None:
    flops, moved = cost.flops, cost.bytes
    cells = (_count_text(today(flops)), _count_text(once(flops)), size_text(today(moved)), size_text(once(moved)))
    grid.add_row(label, *(cell.strip() for cell in cells))


def _nodes_table(nodes: Sequence[NodeCost], cost: Cost, width: int) -> str:
    grid = Grid(title="Most FLOPs", title_justify="left")
    grid.add_column("operator", no_wrap=True, overflow="ellipsis")
    grid.add_column("node", no_wrap=True, overflow="ellipsis", min_width=10)
    grid.add_column("output", no_wrap=True, overflow="ellipsis")
    if cost.roles_known:
        grid.add_column("work", no_wrap=True)
    grid.add_column("FLOP", justify="right", no_wrap=True)
    grid.add_column("share", justify="right", no_wrap=True)
    for node in nodes:
        name = f"{node.within}/{node.name}" if node.within else node.name
        shape = "?" if node.shape is None else shape_text(node.shape)
        flops = node.flops or 0
        work = (_CLASSES[node.dependence],) if cost.roles_known else ()
        grid.add_row(escape(node.op), escape(name), shape, *work, _count_text(flops).strip(), f"{flops / cost.flops.total:.0%}")
    return drawn(grid, width)


def _unknown_text(nodes: Sequence[NodeCost]) -> str:
    shown = [f"{node.op} '{node.name}' ({node.unknown})" for node in nodes[:_UNKNOWN_SHOWN]]
    if len(nodes) > _UNKNOWN_SHOWN:
        shown.append(f"and {len(nodes) - _UNKNOWN_SHOWN} more")
    return f"Unknown, and in none of these sums: {'; '.join(shown)}"
