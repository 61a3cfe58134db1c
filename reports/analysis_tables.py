"""The tables of a live experiment: the arms, the sample ratio, the effects."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.estimate import Estimate
from ..experiment.result import Analysis, Effect
from .comparison_tables import segment_name
from .numbers import Format, count, fixed, ms, p_value, signed
from .table import Cell, Table, columns, estimate_cell, outcome_cell, plain, side_of

PERCENT = fixed(2, scale=100, suffix=" %")
RELATIVE = signed(1, scale=100, suffix=" %")
POINTS = signed(3, scale=100)


def rate_name(analysis: Analysis) -> str:
    """What the metric is called in a heading."""
    return "CTR" if analysis.metric.lower() == "ctr" else analysis.metric


def arms_table(analysis: Analysis) -> Table:
    """One row per arm, the control first as configured."""
    rows = []
    for arm in analysis.arms:
        role = "control" if arm.arm == analysis.control else "treatment"
        shown = plain(arm.arm, "" if arm.arm == role else role)
        numbers = (plain(count(arm.users)), plain(count(arm.exposures)), plain(count(arm.impressions)), plain(count(arm.clicks)))
        times = (plain(ms(arm.latency_p50_ms)), plain(ms(arm.latency_p95_ms)))
        rows.append((shown, plain(arm.model), *numbers, estimate_cell(arm.ctr, PERCENT), *times))
    head = columns("Arm", "Model", "Users", "Exposures", "Impressions", "Clicks", rate_name(analysis), "p50 ms", "p95 ms", text=2)
    return Table(caption="Arms", columns=head, rows=tuple(rows))


def ratio_table(analysis: Analysis) -> Table:
    """Users expected and observed per arm."""
    ratio = analysis.sample_ratio
    total, weight = sum(ratio.observed.values()), sum(ratio.expected.values())
    rows = []
    for arm in dict.fromkeys([*ratio.expected, *ratio.observed]):
        share = ratio.expected.get(arm, 0.0) / weight if weight else None
        seen = ratio.observed.get(arm, 0)
        expected = plain("unknown") if share is None else plain(f"{share:.1%}".replace("%", " %"))
        observed = plain(f"{seen / total:.1%}".replace("%", " %")) if total else plain("unknown")
        rows.append((plain(arm), expected, observed, plain(count(seen))))
    return Table(caption="Users per arm", columns=columns("Arm", "Expected share", "Observed share", "Users"), rows=tuple(rows))


def ratio_sentence(analysis: Analysis) -> str:
    """What the sample-ratio check says."""
    ratio = analysis.sample_ratio
    found = f"p = {p_value(ratio.p_value)}".replace("= <", "<") + f", threshold {ratio.threshold:g}"
    if ratio.p_value is None:
        return f"Sample ratio: could not be checked ({found})."
    if ratio.ok:
        return f"Sample ratio: as configured ({found})."
    return f"Sample ratio MISMATCH ({found}): users did not fall into the arms as configured, so no effect below can be trusted."


def effects_table(analysis: Analysis) -> Table:
    """The effect on everyone, then on each segment."""
    head = columns("Segment", "Treatment", "Relative", "Absolute, points", "p", "Design effect", "Users needed per arm", "Outcome", text=2)
    rows = tuple(_effect_row(e) for e in every_effect(analysis))
    return Table(caption=f"Effect on {rate_name(analysis)}", columns=head, rows=rows)


def every_effect(analysis: Analysis) -> tuple[Effect, ...]:
    """Effects on everyone, then on each segment."""
    return (*analysis.effects, *analysis.segments)


def _effect_row(effect: Effect) -> tuple[Cell, ...]:
    def shown(estimate: Estimate, form: Format) -> Cell:
        return estimate_cell(estimate, form, side_of(estimate, 0.0, "higher"))

    return (
        plain(segment_name(effect.segment)),
        plain(effect.treatment),
        shown(effect.relative, RELATIVE),
        shown(effect.absolute, POINTS),
        plain(p_value(effect.p_value)),
        plain("unknown" if effect.design_effect is None else f"{effect.design_effect:.2f}"),
        plain(count(effect.users_needed)),
        outcome_cell(effect.outcome),
    )


def reasons(effects: Iterable[Effect]) -> tuple[tuple[str, Effect], ...]:
    """Each effect with a name for its sentence."""
    return tuple((f"{e.treatment}, {segment_name(e.segment)}", e) for e in effects)


def facts(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Where the live numbers come from, as label and value."""
    ignored = ", ".join(f"{why}: {n:,}" for why, n in analysis.ignored.items() if n) or "nothing"
    return (
        ("Experiment", f"{analysis.experiment} (salt {analysis.salt})"),
        ("Metric", f"{rate_name(analysis)}, intervals clustered by user"),
        ("First exposure", analysis.first_exposure_at or "unknown"),
        ("Last exposure", analysis.last_exposure_at or "unknown"),
        ("Left out", ignored),
    )
