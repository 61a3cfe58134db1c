"""Load results as text for a terminal: pure functions from results to rich renderables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..render import milliseconds, new_table
from .arrivals import ArrivalsRef
from .result import Answer, Conditions, Distribution, Load, ModelLoad

_STYLES: dict[Answer, str] = {"meets": "bold green", "misses": "bold red", "unclear": "bold yellow"}
_INVALID = "bold magenta"


def load_view(result: Load) -> RenderableType:
    """One row per model, what was unusual about it, and where the numbers come from."""
    at = result.conditions
    table = new_table(f"{at.instance} ({at.label}, {_servers(at)}): {_arrivals(result.arrivals)}; ms from when a request was due [95 %]")
    quantiles = list(result.models[0].latency_ms)
    for heading in ("model", *quantiles, "service p50 / p95", "offered / achieved per s", "busy", "late p99", "requests"):
        table.add_column(escape(heading), justify="left" if heading == "model" else "right")
    for model in result.models:
        table.add_row(*_row(model, quantiles))
    lines: list[RenderableType] = [table]
    for model in result.models:
        lines += _words(model)
    lines += conditions_view(at)
    lines += [Text(f"INVALID: {reason}", style=_INVALID) for reason in result.invalid]
    return Group(*lines)


def conditions_view(at: Conditions) -> list[RenderableType]:
    """Candidates, machine and requests in words."""
    spread = f"candidates per request: {spread_text(at.candidates_per_request)} over {at.candidates_per_request.n} requests"
    notes = [spread, f"{at.label}: {at.note}", f"seed {at.seed}"]
    if at.requests.generated:
        notes.append("no requests were given: they were generated from the signature; real traffic will differ")
    return [Text(note, style="dim") for note in notes]


def spread_text(spread: Distribution) -> str:
    """`min 3, median 30, p95 80, max 120`."""
    return f"min {spread.min:g}, median {spread.median:g}, p95 {spread.p95:g}, max {spread.max:g}"


def answer_text(answer: Answer, words: str) -> Text:
    """An answer and what it is about, in its colour."""
    return Text.assemble("  ", (f"{answer:<8}", _STYLES[answer]), f" {words}")


def _row(model: ModelLoad, quantiles: Sequence[str]) -> list[str]:
    latency = [milliseconds(model.latency_ms[name]) for name in quantiles]
    service = "\n".join(milliseconds(model.service_ms[name]) for name in ("p50", "p95"))
    rate = f"{model.offered_per_s:.1f}\n{escape(model.achieved_per_s.text(1))}"
    asked = f"{model.requests:,} in {model.launches} launches" + (f"\n{model.unanswered:,} unanswered" if model.unanswered else "")
    busy, late = escape(model.utilisation.text(0, 100)) + " %", f"{model.lag_ms['p99']:.3f} ms"
    return [escape(model.model.name), *latency, service, rate, busy, late, asked]


def _words(model: ModelLoad) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if model.overload is not None:
        lines.append(Text(f"OVERLOADED: {model.model.name}: {model.overload}; latency grows with time", style="bold red"))
    for one in model.limits:
        lines.append(answer_text(one.answer, f"{model.model.name}: {one.limit.text}: found {one.found_ms.text(3)} ms"))
    lines += [Text(f"INVALID: {model.model.name}: {reason}", style=_INVALID) for reason in model.invalid]
    return lines


def _servers(at: Conditions) -> str:
    threads = f"{at.threads} thread{'s' if at.threads != 1 else ''}"
    return f"{at.servers} server{'s' if at.servers != 1 else ''} of {threads}"


def _arrivals(ref: ArrivalsRef) -> str:
    if ref.process == "poisson":
        return f"Poisson, {ref.rate_per_s:g} requests/s"
    scaled = "" if ref.rate_per_s == ref.recorded_per_s else f" (recorded at {ref.recorded_per_s:.2f}/s, time scaled)"
    return f"{ref.source}: {ref.rate_per_s:.4g} requests/s{scaled}, gaps vary by {ref.gap_cv:.2f} of their mean"
