"""The history of a gate for a terminal: per machine and instance one sparkline and one row per run."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .render import STYLES, decimals, new_table
from .trend import Trend, TrendLatency, TrendLine

_BARS = "▁▂▃▄▅▆▇█"
_QUANTILES = ("p50", "p95", "p99")
_SPARK = "p95"


def trend_view(trend: Trend, *, last: int) -> RenderableType:
    """The `last` runs of every machine, oldest first; two machines never share a table or a line."""
    parts: list[RenderableType] = []
    for fingerprint, lines in trend.machines().items():
        machine = lines[-1].machine
        runs = f"{len(lines)} run" if len(lines) == 1 else f"{len(lines)} runs"
        about = f"machine {fingerprint}: {machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB; {runs}"
        parts += ["", Text(about, style="bold")]
        for instance, threads in dict.fromkeys((found.instance, found.threads) for line in lines for found in line.latency):
            parts += _instance(instance, threads, lines[-last:])
    parts += [Text(f"{u.file}: line {u.line} cannot be read and was left as it is ({u.why})", style="yellow") for u in trend.unreadable]
    parts += ["", Text("history for people: no gate is decided by it, the control is measured anew in every run", style="dim")]
    return Group(*parts)


def sparkline(values: Sequence[float | None]) -> str:
    """One bar per value from lowest to highest; a dot for what is unknown."""
    known = [v for v in values if v is not None]
    low, span = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    levels = [None if v is None else 3 if span == 0 else round((v - low) / span * (len(_BARS) - 1)) for v in values]
    return "".join("·" if level is None else _BARS[level] for level in levels)


def _instance(instance: str, threads: int | None, lines: Sequence[TrendLine]) -> list[RenderableType]:
    """Three lines per run, narrow enough for a terminal of 80 columns."""
    rows = [(line, found) for line in lines if (found := _treatment(line, instance, threads)) is not None]
    if not rows:
        return []
    labels = ", ".join(dict.fromkeys(found.label for _, found in rows))
    shown = new_table(escape(f"{instance} ({labels}{'' if threads is None else f', threads: {threads}'})"))
    for heading in ("run", "verdict", "treatment in ms [95 %], x its ratio to the control"):
        shown.add_column(heading)
    for line, found in rows:
        models = [f"{model.name} {model.digest[:8]}" for model in (line.control, line.treatment)]
        about = Text("\n".join((line.started_at[:16].replace("T", " "), *models)))
        verdict = Text(line.outcome.value, style=STYLES[line.outcome])
        shown.add_row(about, verdict, Text("\n".join(_quantile(found, q) for q in _QUANTILES), style="dim" if found.disturbed else ""))
    values = [_value(found) for _, found in rows]
    known = [v for v in values if v is not None]
    spread = f" {min(known):.3g} to {max(known):.3g} ms" if known else ""
    return ["", Text(f"{_SPARK} {sparkline(values)}{spread}"), shown]


def _treatment(line: TrendLine, instance: str, threads: int | None) -> TrendLatency | None:
    wanted = (instance, threads, line.treatment.name)
    return next((f for f in line.latency if (f.instance, f.threads, f.model) == wanted), None)


def _value(found: TrendLatency) -> float | None:
    """A number that may be drawn: a disturbed run has none."""
    estimate = found.quantiles_ms.get(_SPARK)
    return None if estimate is None or found.disturbed else estimate.value


def _quantile(found: TrendLatency, quantile: str) -> str:
    """`p95 0.039 [0.036, 0.044] x 0.850 [0.607, 1.189]`."""
    estimate, ratio = found.quantiles_ms.get(quantile), found.ratios.get(quantile)
    value = "unknown" if estimate is None else estimate.text(decimals(estimate))
    return f"{quantile} {value}" + ("" if ratio is None else f" x {ratio.text(3)}") + (" (disturbed)" if found.disturbed else "")
