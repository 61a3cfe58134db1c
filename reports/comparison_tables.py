"""The tables of a comparison: latency per instance, starting up, quality per segment, and where the numbers come from."""

from __future__ import annotations

from ..core.artifact import ModelRef
from ..core.columns import ALL_SEGMENTS
from ..core.estimate import Estimate
from ..core.plural import plural
from ..profile.result import QUANTILES, Comparison, InstanceLatency, LatencyChange, ModelLatency
from ..quality.result import QualityChange
from .numbers import count, duration, fixed, middle_ms, ms_format, signed, size
from .table import Cell, Column, Table, columns, estimate_cell, outcome_cell, plain, side_of

RATIO = fixed(3)
QUALITY = fixed(4)
_CONTROL = Cell(text="control", tone="muted")


def metrics_of(comparison: Comparison) -> tuple[str, ...]:
    """Every quality metric somewhere in the comparison, in order of appearance."""
    names = [m.metric for q in comparison.quality for m in q.metrics]
    names += [c.metric for candidate in comparison.candidates for c in candidate.quality]
    return tuple(dict.fromkeys(names))


def headline_metric(comparison: Comparison) -> str | None:
    """The metric that charts show: ndcg@10 when there is one, else any NDCG, else the first."""
    names = metrics_of(comparison)
    return next((n for n in names if n == "ndcg@10"), next((n for n in names if n.startswith("ndcg")), names[0] if names else None))


def quantiles_of(instance: InstanceLatency) -> tuple[str, ...]:
    """The quantiles that any model has here, lowest first."""
    found = {q for m in instance.models for q in m.quantiles_ms}
    return tuple(sorted(found, key=lambda q: QUANTILES.get(q, 2.0)))


def headline_quantile(instance: InstanceLatency) -> str | None:
    """The quantile that charts and ratios show: p95 when there is one, else the highest."""
    found = quantiles_of(instance)
    return "p95" if "p95" in found else found[-1] if found else None


def change_of(instance: InstanceLatency, model: str, quantile: str) -> LatencyChange | None:
    """A treatment's change at one quantile."""
    return next((c for c in instance.changes.get(model, ()) if c.quantile == quantile), None)


def quality_change(comparison: Comparison, model: str, metric: str, segment: str = ALL_SEGMENTS) -> QualityChange | None:
    """A treatment's change of one metric on one segment."""
    changes = (c for candidate in comparison.candidates if candidate.model.name == model for c in candidate.quality)
    return next((c for c in changes if c.metric == metric and c.segment == segment), None)


def quality_value(comparison: Comparison, model: str, metric: str, segment: str = ALL_SEGMENTS) -> Estimate | None:
    """A model's own value of one metric on one segment."""
    values = (m for q in comparison.quality if q.model.name == model for m in q.metrics)
    return next((m.estimate for m in values if m.metric == metric and m.segment == segment), None)


def summary_table(comparison: Comparison, instance: InstanceLatency) -> Table:
    """One row per model: verdict, latency, latency and quality against the control, size of the files and of the process."""
    quantiles = quantiles_of(instance)
    main = headline_quantile(instance)
    metrics = metrics_of(comparison)[:3]
    heads = ["Model", "Verdict", *(f"{q} ms" for q in quantiles), *([f"{main} / control"] if main else [])]
    heads += [*(f"{m} / control" for m in metrics), "Size (memory)"]
    head = tuple(Column(name=h, numeric=h not in ("Model", "Verdict")) for h in heads)
    runtimes = {m.model.runtime for m in instance.models}
    rows = []
    for model in instance.models:
        name, is_control = model.model.name, model.model.name == comparison.control.name
        verdict = next((c.verdict for c in comparison.candidates if c.model.name == name), None)
        row = [plain(name, model.model.runtime if len(runtimes) > 1 else "")]
        row.append(_CONTROL if is_control else outcome_cell(verdict.outcome if verdict else None))
        for quantile in quantiles:
            estimate = model.quantiles_ms.get(quantile)
            row.append(estimate_cell(estimate, ms_format(estimate)) if estimate else plain("unknown"))
        if main:
            change = change_of(instance, name, main)
            # A number that cannot be trusted is neither good nor bad.
            tone = side_of(change.ratio, 1.0, "lower") if change and not instance.invalid else ""
            row.append(_CONTROL if is_control else estimate_cell(change.ratio if change else None, RATIO, tone))
        for metric in metrics:
            shift = quality_change(comparison, name, metric)
            tone = side_of(shift.ratio, 1.0, "higher") if shift else ""
            row.append(_CONTROL if is_control else estimate_cell(shift.ratio if shift else None, RATIO, tone))
        row.append(plain(size(model.model.size_bytes), f"({size(max(model.memory_bytes, default=None))})"))
        rows.append(tuple(row))
    return Table(caption=f"All models on {instance.name}", columns=head, rows=tuple(rows))


def change_table(instance: InstanceLatency) -> Table:
    """Latency of each treatment over the control's, per quantile, paired by round."""
    quantiles = tuple(q for q in quantiles_of(instance) if any(change_of(instance, m, q) for m in instance.changes))
    rows = []
    for name, changes in instance.changes.items():
        row = [plain(name)]
        for quantile in quantiles:
            change = change_of(instance, name, quantile)
            tone = side_of(change.ratio, 1.0, "lower") if change and not instance.invalid else ""
            row.append(estimate_cell(change.ratio if change else None, RATIO, tone))
        rows.append((*row, plain(count(max((len(c.round_ratios) for c in changes), default=0)))))
    head = columns("Treatment", *(f"{q} / control" for q in quantiles), "Rounds")
    return Table(caption=f"Latency against the control on {instance.name}", columns=head, rows=tuple(rows))


def start_table(instance: InstanceLatency) -> Table:
    """Cold start and how much was sampled."""

    def row(model: ModelLatency) -> tuple[Cell, ...]:
        sampled = (plain(count(model.samples)), plain(count(model.rounds)), plain(count(model.launches)))
        return (plain(model.model.name), plain(middle_ms(model.load_ms)), plain(middle_ms(model.first_request_ms)), *sampled)

    head = columns("Model", "Load ms", "First request ms", "Requests timed", "Rounds", "Launches")
    return Table(caption=f"Cold start and samples on {instance.name}", columns=head, rows=tuple(row(m) for m in instance.models))


def segment_table(comparison: Comparison, metric: str) -> Table:
    """One metric per segment and treatment; everyone first."""

    def row(model: str, change: QualityChange) -> tuple[Cell, ...]:
        return (
            plain(segment_name(change.segment)),
            plain(model),
            plain(count(change.users)),
            estimate_cell(change.control, QUALITY),
            estimate_cell(change.treatment, QUALITY),
            estimate_cell(change.difference, signed(4), side_of(change.difference, 0.0, "higher")),
            estimate_cell(change.ratio, RATIO, side_of(change.ratio, 1.0, "higher")),
        )

    head = columns("Segment", "Treatment", "Users", "Control's value", "Treatment's value", "Difference", "Ratio", text=2)
    return Table(caption=f"{metric} per segment", columns=head, rows=tuple(row(m, c) for m, c in segment_changes(comparison, metric)))


def segment_changes(comparison: Comparison, metric: str) -> list[tuple[str, QualityChange]]:
    """Treatment and its change, all treatments of a segment together, everyone first."""
    found = [(c.model.name, q) for c in comparison.candidates for q in c.quality if q.metric == metric]
    segments = list(dict.fromkeys(q.segment for _, q in found))
    return sorted(found, key=lambda pair: (pair[1].segment != ALL_SEGMENTS, segments.index(pair[1].segment)))


def segment_name(segment: str) -> str:
    """The segment as a reader knows it."""
    return "everyone" if segment == ALL_SEGMENTS else segment


def undefined_requests(comparison: Comparison) -> tuple[str, ...]:
    """Sentences on requests that a metric could not judge: left out, never scored as zero."""
    found = {
        m.metric: (m.undefined_requests, m.requests) for q in comparison.quality for m in q.metrics if m.segment == ALL_SEGMENTS
    }  # equal for every model: it depends on the labels only
    return tuple(f"{metric}: {plural(n, 'request')} could not be judged and were left out." for metric, (n, _) in found.items() if n)


def models_table(comparison: Comparison) -> Table:
    """Which artifacts were measured and how each was made."""

    def row(model: ModelRef) -> tuple[Cell, ...]:
        made = " → ".join(model.lineage) if model.lineage else "as exported"
        return (plain(model.name), plain(model.digest[:12]), plain(model.runtime), plain(made), plain(size(model.size_bytes)))

    head = columns("Model", "Digest", "Runtime", "Made by", "Size", text=4)
    models = (comparison.control, *(c.model for c in comparison.candidates))
    return Table(caption="Models", columns=head, rows=tuple(row(m) for m in models))


def facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    """Where the numbers come from, as label and value."""
    requests, machine = comparison.requests, comparison.machine
    origin = "generated" if requests.generated else f"sha256 {requests.sha256[:12]}" if requests.sha256 else "digest unknown"
    threads = "1 thread per core" if machine.threads_per_core == 1 else f"{machine.threads_per_core} threads per core"
    return (
        ("Requests", f"{requests.source}: {plural(requests.requests, 'request')} of {plural(requests.users, 'user')}, {origin}"),
        ("Budget", comparison.budget or "none given"),
        ("Machine", f"{machine.cpu}, {plural(machine.cores, 'core')} ({threads}), {machine.memory_gib:g} GiB, {machine.system}"),
        ("CPU features", ", ".join(machine.features) or "none that matter"),
        ("Machine fingerprint", machine.fingerprint),
        ("Tools", ", ".join(f"{name} {version}" for name, version in comparison.tools.items())),
        ("Seed", str(comparison.seed)),
        ("Started", comparison.started_at),
        ("Took", duration(comparison.seconds)),
    )
