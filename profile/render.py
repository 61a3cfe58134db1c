"""A comparison as text for a terminal: pure functions from results to rich renderables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..core.estimate import Estimate
from ..core.plural import plural
from ..core.verdict import Finding, Outcome, Verdict
from .calibrate import Calibration
from .provenance import Distribution, Provenance
from .result import QUANTILES, Candidate, Comparison, InstanceLatency, ModelLatency

_TOLD = {"20 s": 20.0, "1 min": 60.0, "5 min": 300.0}
STYLES = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red", Outcome.UNDECIDED: "bold yellow", Outcome.INVALID: "bold magenta"}


def comparison_view(result: Comparison) -> RenderableType:
    """Notes, latency per instance, quality per segment, then the verdict on every treatment."""
    parts: list[RenderableType] = [Text(f"note: {note}", style="dim") for note in result.notes]
    for instance in result.instances:
        parts += ["", *latency_view(instance)]
    for candidate in result.candidates:
        if candidate.quality:
            parts += ["", _quality_table(candidate, result.control.name)]
    for candidate in result.candidates:
        if candidate.verdict is not None:
            parts += ["", *_verdict_view(candidate.model.name, candidate.verdict)]
    return Group(*parts)


def latency_view(latency: InstanceLatency) -> list[RenderableType]:
    """One row per model, with the ratio to the control paired by round."""
    control = latency.models[0].model.name
    table = new_table(f"{latency.name} ({latency.how}, {plural(latency.threads, 'thread')}): {latency.what} in ms [95 %]")
    table.add_column("model")
    for name in QUANTILES:
        table.add_column(name, justify="right")
    table.add_column("cold start", justify="right")
    table.add_column("memory", justify="right")
    table.add_column("requests", justify="right")
    for model in latency.models:
        quantiles = [f"{milliseconds(model.quantiles_ms[name])}{_ratio(latency, model, name)}" for name in QUANTILES]
        table.add_row(escape(model.model.name), *quantiles, _cold(model), _memory(model), _counts(model))
    lines: list[RenderableType] = [table]
    if len(latency.models) > 1:
        lines.append(Text(f"x: ratio to {control}, and whether it is surely slower or faster; ?: too little data to tell", style="dim"))
    lines.append(Text(latency.note, style="dim"))
    lines.extend(Text(f"INVALID: {reason}", style=STYLES[Outcome.INVALID]) for reason in latency.invalid)
    lines.extend(Text(f"unsteady, so only ratios are to be trusted: {reason}", style="yellow") for reason in latency.unsteady)
    return lines


def calibration_view(found: Calibration) -> list[RenderableType]:
    """Per quantile: how equal models differed, how often they were told apart, and what a gate could be asked here."""
    times = f"{found.comparisons} comparisons of {found.seconds:g} s"
    table = new_table(f"{found.instance} ({found.label}): {escape(found.model)} against itself, {times}")
    for heading in ("quantile", "a round", "a launch", "told apart", *(f"margin in {name}" for name in _TOLD)):
        table.add_column(heading, justify="left" if heading == "quantile" else "right")
    for noise in found.noise:
        spreads = (_spread([d for launch in noise.paired.rounds for d in launch]), _spread(noise.paired.launches))
        margins = (found.tightest(noise.quantile, 0.05, seconds) for seconds in _TOLD.values())
        shown = ("none" if margin is None else f"{margin:.1%}" for margin in margins)
        table.add_row(noise.quantile, *spreads, f"{noise.alarms} of {found.comparisons}", *shown)
    bound = 1 - 0.05 ** (1 / found.comparisons)
    lines: list[RenderableType] = [table]
    lines.append(Text("a round, a launch: 1.48 median absolute deviations of the ratio of equal models", style="dim"))
    if not any(noise.alarms for noise in found.noise):
        lines.append(Text(f"no false alarm in {found.comparisons}: their rate is below {bound:.0%} (95 %)", style="dim"))
    lines.append(Text("margin: the tightest max_regress that equal models keep to 4 times in 5 at alpha 5 %", style="dim"))
    if found.spoiled:
        count, total = len(found.spoiled), len(found.spoiled) + found.comparisons
        again = f"{count} of {total} comparisons made again, as INVALID: expect about {count / total:.0%} of gates to be"
        lines.extend(Text(words, style="yellow") for words in (again, *(f"  {reason}" for reason in dict.fromkeys(found.spoiled))))
    lines.extend(Text(f"while calibrating: {reason}", style="yellow") for reason in found.unsteady)
    return lines


def place_text(at: Provenance) -> str:
    """`m5.large (emulated, 1 server of 2 threads)`."""
    return f"{at.instance} ({at.how}, {plural(at.servers, 'server')} of {plural(at.threads, 'thread')})"


def provenance_view(at: Provenance) -> list[RenderableType]:
    """Candidates, machine and requests in words."""
    spread = f"candidates per request: {spread_text(at.candidates_per_request)} over {at.candidates_per_request.n} requests"
    notes = [spread, at.note if at.note.startswith(at.label) else f"{at.label}: {at.note}", f"seed {at.seed}"]
    if at.requests.generated:
        notes.append("no requests were given: they were generated from the signature; real traffic will differ")
    return [Text(note, style="dim") for note in notes]


def spread_text(spread: Distribution) -> str:
    """`min 3, median 30, p95 80, max 120`."""
    return f"min {spread.min:g}, median {spread.median:g}, p95 {spread.p95:g}, max {spread.max:g}"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return "unknown"
    middle = median(values)
    return f"{1.4826 * median(abs(v - middle) for v in values):.2%}"


def milliseconds(estimate: Estimate) -> str:
    """Three decimals below 10 ms, fewer above."""
    return escape(estimate.text(decimals(estimate)))


def decimals(estimate: Estimate) -> int:
    """How many a number of milliseconds is shown with."""
    size = estimate.value or 0.0
    return 3 if size < 10 else 2 if size < 100 else 1


def _ratio(latency: InstanceLatency, model: ModelLatency, quantile: str) -> str:
    change = next((c for c in latency.changes.get(model.model.name, ()) if c.quantile == quantile), None)
    if change is None:
        return ""
    return f"\nx {escape(change.ratio.text(3))}{'' if change.direction == 'unclear' or latency.invalid else f' {change.direction}'}"


def _memory(model: ModelLatency) -> str:
    return f"{max(model.memory_bytes) / 2**20:.0f} MiB" if model.memory_bytes else "unknown"


def _cold(model: ModelLatency) -> str:
    times = sorted(load + first for load, first in zip(model.load_ms, model.first_request_ms, strict=True))
    return f"{times[len(times) // 2]:.1f} ms"


def _counts(model: ModelLatency) -> str:
    return f"{model.samples:,} in {model.rounds} rounds\nof {model.launches} launches"


def _quality_table(candidate: Candidate, control: str) -> RenderableType:
    table = new_table(f"ranking quality of {escape(candidate.model.name)} against {escape(control)} [95 %]")
    for heading in ("metric", "segment", "users", control, candidate.model.name, "ratio"):
        table.add_column(escape(heading), justify="left" if heading in ("metric", "segment") else "right")
    for change in candidate.quality:
        row: Sequence[Estimate] = (change.control, change.treatment, change.ratio)
        table.add_row(change.metric, escape(change.segment), str(change.users), *(escape(e.text(4)) for e in row))
    return table


def _verdict_view(name: str, verdict: Verdict) -> list[RenderableType]:
    lines: list[RenderableType] = [Text.assemble((verdict.outcome.value, STYLES[verdict.outcome]), f"  {name}")]
    lines.extend(_finding_line(finding) for finding in verdict.findings)
    return lines


def _finding_line(finding: Finding) -> Text:
    warning = " (warning only)" if finding.level == "warn" else ""
    return Text.assemble("  ", (f"{finding.outcome.value:<9}", STYLES[finding.outcome]), f" {finding.reason}{warning}")


def new_table(title: str) -> Table:
    """A table as all of ours look."""
    return Table(title=title, title_justify="left", title_style="bold", header_style="", show_edge=False, pad_edge=False)
