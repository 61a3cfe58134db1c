"""Traces and flame graphs as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..render import new_table
from .result import Part, Traced, TracedService

_ROWS = 12
VIEWER = "open it at https://ui.perfetto.dev (it stays in your browser) or in chrome://tracing"


def traced_view(found: Traced) -> RenderableType:
    """Operators, then the slowest nodes."""
    t = found.tables
    head = f"{found.model.name} under the profiler: {t.infer_us.text(1)} µs per request, "
    head += f"{t.tail_us:.1f} µs in the slowest 1 % ({t.tail_requests} of {t.requests:,} requests)"
    parts: list[RenderableType] = [Text(head)]
    if t.operators:
        parts += ["", _parts("operators", [*t.operators[:_ROWS], t.outside], left=len(t.operators) - _ROWS)]
        parts += ["", _parts("nodes", t.nodes[:_ROWS], left=len(t.nodes) - _ROWS, ops=True)]
    parts += ["", *notes_view(found.notes), Text(f"wrote {found.trace}; {VIEWER}")]
    return Group(*parts)


def _parts(title: str, parts: Sequence[Part], *, left: int, ops: bool = False) -> Table:
    table = new_table(f"{title}: own time per request in µs [95 %]")
    table.add_column(title[:-1])
    if ops:
        table.add_column("operator")
    for heading in ("typical request", "share", "slowest 1 %"):
        table.add_column(heading, justify="right")
    for part in parts:
        name = [escape(part.name), *([escape(part.op)] if ops else [])]
        table.add_row(*name, escape(part.typical_us.text(1)), f"{part.share:.1%}", f"{part.tail_us:.1f}")
    if left > 0:
        table.add_row(Text(f"… and {left} more (--json has all)", style="dim"))
    return table


def service_view(found: TracedService) -> RenderableType:
    """Every kind of span of a served process."""
    lines: list[RenderableType] = []
    if found.parts:
        lines.append(Text(f"process {found.pid}: {found.sampled} sampled and {found.slow} slow requests of {found.seen:,}"))
        table = new_table("ms per request")
        table.add_column("span")
        for heading in ("median", "25 % to 75 %", "mean of the slow ones"):
            table.add_column(heading, justify="right")
        for part in found.parts:
            low, middle, high = part.quartiles_ms or (None, None, None)
            spread = "?" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            table.add_row(escape(part.name), _ms(middle), spread, _ms(part.slow_ms))
        lines += [table, ""]
    return Group(*lines, *notes_view(found.notes), Text(f"wrote {found.trace}; {VIEWER}"))


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.3f}"


def notes_view(notes: Sequence[str]) -> list[RenderableType]:
    """What a reader must know."""
    return [Text(f"note: {note}", style="dim") for note in notes]
