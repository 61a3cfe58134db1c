"""An explanation as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..render import new_table
from .explanation import Change, Explanation
from .view import notes_view

_ROWS = 10


def explanation_view(found: Explanation) -> RenderableType:
    """The sentence, operators, nodes, then the slowest requests."""
    plain = found.unprofiled
    tail = found.tail
    counts = f"{found.pairs:,} pairs of requests in {found.rounds} rounds of {found.launches} launches"
    slow = ", ".join(f"{part.name} {part.difference_us.text(1)}" for part in tail.parts[:3])
    return Group(
        *(Text(f"INVALID: {reason}", style="bold magenta") for reason in found.invalid),
        *(Text(f"unsteady: {reason} (trust differences more than times)", style="yellow") for reason in found.unsteady),
        Text(found.conclusion, style="bold"),
        Text(
            f"without the profiler: {found.control.name} {plain.control_us.text(1)} µs, {found.treatment.name} {plain.treatment_us.text(1)}"
            f" µs, difference {plain.difference_us.text(1)} µs",
        ),
        "",
        _changes("operators", [*found.operators[:_ROWS], found.outside], found, left=len(found.operators) - _ROWS),
        "",
        _changes("nodes", found.nodes[:_ROWS], found, left=len(found.nodes) - _ROWS),
        "",
        Text(f"slowest 1 % ({tail.requests} requests each): difference {tail.difference_us.text(1)} µs; most of it: {slow}"),
        Text(f"{counts} on {found.instance} ({found.label}: {found.standing}), seed {found.seed}", style="dim"),
        *notes_view(found.notes),
    )


def _changes(title: str, changes: Sequence[Change], found: Explanation, *, left: int) -> Table:
    table = new_table(f"{title}: own time per request in µs [95 %]")
    table.add_column(title[:-1])
    if title == "nodes":
        table.add_column("operator")
    for heading in (found.control.name, found.treatment.name, "difference", "share in %"):
        table.add_column(escape(heading), justify="right")
    for change in changes:
        count = "" if title == "nodes" or change.nodes[0] == change.nodes[1] else f" ({change.nodes[0]} → {change.nodes[1]} nodes)"
        name = escape(change.name + count)
        operator = [escape(change.op)] if title == "nodes" else []
        share = "" if change.share is None else escape(change.share.text(1, 100))
        times = (_us(change.control_us), _us(change.treatment_us))
        style = "bold" if change.stands_out else ""
        table.add_row(name, *operator, *times, escape(change.difference_us.text(1)), share, style=style)
    if left > 0:
        table.add_row(Text(f"… and {left} more (--json has all)", style="dim"))
    return table


def _us(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
