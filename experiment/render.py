"""An analysis as text for the terminal."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from .result import Analysis, Effect

if TYPE_CHECKING:
    from rich.table import Table


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f}"


def _arms(analysis: Analysis) -> Table:
    from rich.table import Table  # noqa: PLC0415 - not needed for --help

    table = Table(title=f"{analysis.experiment}: {analysis.metric.upper()} per arm", title_justify="left")
    for name in ("arm", "model", "users", "impressions", "clicks", "CTR %, interval", "p50 ms", "p95 ms"):
        table.add_column(name, justify="left" if name in ("arm", "model") else "right")
    for arm in analysis.arms:
        name = f"{arm.arm} (control)" if arm.arm == analysis.control != "control" else arm.arm
        counts = (f"{arm.users:,}", f"{arm.impressions:,}", f"{arm.clicks:,}")
        table.add_row(name, arm.model, *counts, arm.ctr.text(digits=3, scale=100), _ms(arm.latency_p50_ms), _ms(arm.latency_p95_ms))
    return table


def _effects(analysis: Analysis) -> Table:
    from rich.table import Table  # noqa: PLC0415 - not needed for --help

    table = Table(title="effect on CTR, relative to the control", title_justify="left")
    for name in ("treatment", "segment", "relative %, interval", "p", "users needed", "outcome"):
        table.add_column(name, justify="left" if name in ("treatment", "segment", "outcome") else "right")

    def row(effect: Effect) -> None:
        p = "?" if effect.p_value is None else f"{effect.p_value:.4f}"
        needed = "?" if effect.users_needed is None else f"{effect.users_needed:,}"
        table.add_row(effect.treatment, effect.segment, effect.relative.text(digits=2, scale=100), p, needed, effect.outcome.value)

    for effect in (*analysis.effects, *analysis.segments):
        row(effect)
    return table


def to_text(analysis: Analysis, *, width: int = 120) -> str:
    """The verdict with its reasons, then the numbers behind it."""
    from rich.console import Console  # noqa: PLC0415 - not needed for --help
    from rich.markup import escape  # noqa: PLC0415

    stream = StringIO()
    console = Console(file=stream, width=width, highlight=False, emoji=False)
    console.print(f"{analysis.verdict.outcome.value}  {escape(analysis.experiment)}")
    for finding in analysis.verdict.findings:
        mark = "" if finding.level == "error" else " (for information)"
        console.print(f"  {finding.outcome.value:9} {escape(finding.gate)}{mark}: {escape(finding.reason)}")
    console.print()
    console.print(_arms(analysis))
    console.print(_effects(analysis))
    if analysis.ignored:
        console.print("left out: " + ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in analysis.ignored.items()))
    for note in analysis.notes:
        console.print(f"note: {escape(note)}")
    return stream.getvalue().rstrip()
