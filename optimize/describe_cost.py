"""A model's cost as text for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .cost.cost import Cost, NodeCost, Split
from .cost.embeddings import Table
from .drawing import digits_text, shape_text, size_text, table_text, wrapped

_COSTLIEST = 8
_TABLES_SHOWN = 20
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
    """One line per embedding table, the largest only where there are many."""
    rows = []
    for table in tables[:_TABLES_SHOWN]:
        by = ", ".join(table.indexed_by) or "sizes only"
        rows.append((table.name, f"{table.rows:,}", f"{table.width:,}", table.dtype, size_text(table.size_bytes), by))
    header = ("table", "rows", "width", "dtype", "size", "indexed by")
    text = table_text(header, rows, width, title="Embedding tables", right=("rows", "width", "size"), flexible=("table", "indexed by"))
    rest = tables[_TABLES_SHOWN:]
    return f"{text}\nand {len(rest)} smaller ones, {size_text(sum(table.size_bytes for table in rest))} together" if rest else text


def flop_text(flops: int) -> str:
    """`950 FLOP`, `12.3 MFLOP`."""
    text = count_text(flops)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"


def count_text(count: int) -> str:
    """`950`, `12.3 M`."""
    for unit, factor in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= 0.9995 * factor:
            return f"{digits_text(count / factor)} {unit}"
    return str(count)


def _split_table(cost: Cost, width: int) -> str:
    flops, moved = cost.flops, cost.bytes

    def row(label: str, today: Callable[[Split], int], once: Callable[[Split], int]) -> tuple[str, ...]:
        return label, count_text(today(flops)), count_text(once(flops)), size_text(today(moved)), size_text(once(moved))

    rows = [
        row("request-only", lambda split: split.request, lambda split: split.request_once),
        row("per-candidate", lambda split: split.candidate, lambda split: split.candidate),
        row("constant", lambda split: split.constant, lambda split: split.constant),
        row("total", lambda split: split.total, lambda split: split.total_once),
    ]
    header = ("work", "FLOP", "FLOP if once", "bytes moved", "bytes if once")
    return table_text(header, rows, width, right=header[1:])


def _nodes_table(nodes: Sequence[NodeCost], cost: Cost, width: int) -> str:
    header = ("operator", "node", "output", *(("work",) if cost.roles_known else ()), "FLOP", "share")
    rows = []
    for node in nodes:
        name = f"{node.within}/{node.name}" if node.within else node.name
        shape = "?" if node.shape is None else shape_text(node.shape)
        work = (_CLASSES[node.dependence],) if cost.roles_known else ()
        share = (node.flops or 0) / cost.flops.total
        rows.append((node.op, name, shape, *work, count_text(node.flops or 0), f"{share:.0%}" if share >= 0.005 else "<1%"))
    return table_text(header, rows, width, title="Most FLOPs", right=("FLOP", "share"), flexible=("operator", "node", "output"))


def _unknown_text(nodes: Sequence[NodeCost]) -> str:
    shown = [f"{node.op} '{node.name}' ({node.unknown})" for node in nodes[:_UNKNOWN_SHOWN]]
    if len(nodes) > _UNKNOWN_SHOWN:
        shown.append(f"and {len(nodes) - _UNKNOWN_SHOWN} more")
    return f"Unknown, and in none of these sums: {'; '.join(shown)}"
