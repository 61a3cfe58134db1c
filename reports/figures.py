"""Which numbers of a report go into which chart."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..core.estimate import Estimate
from ..experiment.result import Analysis
from ..profile.result import Comparison, InstanceLatency
from . import charts
from .analysis_tables import PERCENT, RELATIVE, every_effect, rate_name
from .comparison_tables import RATIO, change_of, headline_quantile, quality_value, segment_changes, segment_name
from .limits import LimitLine, limit_lines, near
from .numbers import UNKNOWN, with_interval
from .result import LatencyCurve


def series_of(comparison: Comparison) -> dict[str, int]:
    """A colour number per model, the same in every chart; 0 is the control."""
    names = [comparison.control.name, *(c.model.name for c in comparison.candidates)]
    return {name: i for i, name in enumerate(dict.fromkeys(names))}


def tradeoff(comparison: Comparison, instance: InstanceLatency, metric: str) -> tuple[Markup, tuple[str, ...], tuple[LimitLine, ...]]:
    """Quality against latency, the models left out because a number of theirs is unknown, and the budget lines outside the plot."""
    quantile = headline_quantile(instance) or ""
    points, missing = [], []
    for model in instance.models:
        x = model.quantiles_ms.get(quantile)
        y = quality_value(comparison, model.model.name, metric)
        if x is None or y is None or x.value is None or y.value is None:
            missing.append(model.model.name)
        else:
            points.append(charts.Point(name=model.model.name, series=series_of(comparison).get(model.model.name, 0), x=x, y=y))
    if not points:
        return Markup(""), tuple(missing), ()
    lines = limit_lines(comparison, instance, quantile, metric)
    drawn = near(lines, charts.numbers_in([p.x for p in points]), charts.numbers_in([p.y for p in points]))
    title = f"{metric} against {quantile} latency on {instance.name}"
    chart = charts.scatter(points, title=title, x_title=f"{quantile} {instance.what}, ms", y_title=metric, limits=drawn)
    return chart, tuple(missing), tuple(line for line in lines if line not in drawn)


def segment_forest(comparison: Comparison, metric: str) -> Markup:
    """The ratio to the control per segment and treatment, segments together so that they can be compared."""
    series, several = series_of(comparison), len(comparison.candidates) > 1
    rows = []
    for model, change in segment_changes(comparison, metric):
        label = segment_name(change.segment)
        words = with_interval(change.ratio, RATIO)
        name = f"{label} · {model}" if several else f"{label} ({change.users:,})"
        rows.append(charts.ForestRow(label=name, series=series[model], estimate=change.ratio, words=words))
    return charts.forest(rows, title=f"{metric} against the control per segment", x_title=f"{metric}, treatment / control", reference=1.0)


def drift(comparison: Comparison, instance: InstanceLatency) -> Markup:
    """The paired ratio of every round."""
    quantile = headline_quantile(instance)
    series = series_of(comparison)
    found = ((name, change_of(instance, name, quantile or "")) for name in instance.changes)
    shown = [
        charts.RoundSeries(name=name, series=series.get(name, 1), ratios=change.round_ratios, estimate=change.ratio)
        for name, change in found
        if change is not None
    ]
    title = f"{quantile} ratio of each round on {instance.name}"
    return charts.rounds(shown, title=title, y_title=f"{quantile} of the treatment / {quantile} of the control, same round")


def distribution(comparison: Comparison, curves: Sequence[LatencyCurve], instance: str) -> Markup:
    """Cumulative distributions of all models on one instance."""
    series = series_of(comparison)
    shown = [
        charts.Curve(name=c.model, series=series.get(c.model, 1), ms=c.ms, share=c.share)
        for c in sorted(curves, key=lambda c: series.get(c.model, len(series)))
        if c.instance == instance
    ]
    return charts.ecdf(shown, title=f"Distribution of latencies on {instance}")


def arm_intervals(analysis: Analysis) -> Markup:
    """The rate of each arm with its interval."""
    rows = [
        charts.ForestRow(label=f"{arm.arm} ({arm.model})", series=series, estimate=arm.ctr, words=with_interval(arm.ctr, PERCENT))
        for arm, series in zip(analysis.arms, arm_series(analysis), strict=True)
    ]
    name = rate_name(analysis)
    return charts.forest(rows, title=f"{name} per arm", x_title=f"{name} with its interval", reference=None, unit=0.01, suffix=" %")


def arm_series(analysis: Analysis) -> tuple[int, ...]:
    """A colour number per arm; 0 is the control."""
    others = [a.arm for a in analysis.arms if a.arm != analysis.control]
    return tuple(0 if a.arm == analysis.control else others.index(a.arm) + 1 for a in analysis.arms)


def effect_forest(analysis: Analysis) -> Markup:
    """The relative effect on everyone and on each segment."""
    effects = every_effect(analysis)
    treatments = list(dict.fromkeys(e.treatment for e in effects))
    rows = []
    for effect in effects:
        label = segment_name(effect.segment)
        name = f"{label} · {effect.treatment}" if len(treatments) > 1 else label
        words = with_interval(effect.relative, RELATIVE)
        series = treatments.index(effect.treatment) + 1
        rows.append(charts.ForestRow(label=name, series=series, estimate=effect.relative, words=words))
    title = f"Relative effect on {rate_name(analysis)}"
    return charts.forest(rows, title=title, x_title=f"{title}, treatment against control", reference=0.0, unit=0.01, suffix=" %")


def interval_level(estimates: Sequence[Estimate]) -> str:
    """`95 %`, or every level that occurs."""
    levels = sorted({e.level for e in estimates})
    return " and ".join(f"{level * 100:g} %" for level in levels) or UNKNOWN
