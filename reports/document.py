"""A report laid out: which sections it has, in which order, and what stands in each."""

from __future__ import annotations

from ..core.plural import plural
from ..core.verdict import Finding, Outcome
from ..experiment.result import Analysis
from ..profile.result import Comparison, InstanceLatency
from . import analysis_tables, comparison_tables, figures
from .block import Block, Bullets, Command, Facts, Figure, Fold, Heading, Judgement, Section, Text
from .explanation import explanation_section
from .numbers import UNKNOWN
from .result import Judged, LatencyCurve, Report, Story

NO_BUDGET = "No budget given: reported without judging."
_OPEN_CARDS = 3
_OPEN_PARAGRAPHS = 3
_WORST_FIRST = (Outcome.FAIL, Outcome.INVALID, Outcome.UNDECIDED, Outcome.PASS)


def sections(report: Report) -> tuple[Section, ...]:
    """Every section with something in it, verdict first."""
    found = [Section(name="verdict", title="Verdict", blocks=_verdict(report))]
    if report.story is not None:
        found.append(Section(name="context", title="Context", blocks=_context(report.story)))
    if report.comparison is not None:
        found += _comparison(report.comparison, report.curves)
        found.append(explanation_section(() if report.explanations is None else report.explanations.explanations))
    if report.analysis is not None:
        found.append(Section(name="live", title="Live experiment", blocks=_live(report.analysis)))
    found.append(Section(name="provenance", title="Where the numbers come from", blocks=_provenance(report)))
    found.append(Section(name="reproduce", title="How to reproduce", blocks=_reproduce(report)))
    found.append(Section(name="limits", title="Limits and notes", blocks=(Bullets(items=_limits(report)),)))
    return tuple(s for s in found if s.blocks)


def headline(judged: Judged) -> str:
    """One sentence for one verdict."""
    verdict = judged.verdict
    if verdict is None:
        return NO_BUDGET
    errors = [f for f in verdict.findings if f.level == "error"]
    hit = sum(f.outcome is verdict.outcome for f in errors)
    gates = plural(len(errors), "gate")
    warned = sum(f.level == "warn" and f.outcome is not Outcome.PASS for f in verdict.findings)
    tail = f" {plural(warned, 'warning')} besides." if warned else ""
    if verdict.outcome is Outcome.PASS:
        words = {0: "No gate can fail it.", 1: "The only gate passed.", 2: "Both gates passed."}
        return words.get(len(errors), f"All {gates} passed.") + tail
    of = f"{hit} of {gates}" if len(errors) > 1 else "The only gate"
    ends = {
        Outcome.FAIL: "failed.",
        Outcome.UNDECIDED: "cannot be decided with this much data.",
        Outcome.INVALID: "rests on a measurement that cannot be trusted." if hit < 2 else "rest on a measurement that cannot be trusted.",
    }
    return f"{of} {ends[verdict.outcome]}{tail}"


def verdict_line(judged: Judged) -> str:
    """The verdict for a terminal: `FAIL v1.1 (against v1.0): 2 of 8 gates failed.`"""
    outcome = "NOT JUDGED" if judged.outcome is None else judged.outcome.value
    return f"{outcome} {judged.subject} ({judged.against}): {headline(judged)}"


def generated_banner(comparison: Comparison) -> str:
    """What a reader must know first about requests that nobody made; empty for recorded ones."""
    if not comparison.requests.generated:
        return ""
    why = f" ({comparison.requests.note})" if comparison.requests.note else ""
    return f"The requests were generated, not recorded{why}: latency is indicative only."


def unsteady_sentence(instance: InstanceLatency) -> str:
    """Why only ratios count on a machine that both models had to share."""
    return f"Disturbed, so only ratios on {instance.name} are to be trusted, not milliseconds: {'; '.join(instance.unsteady)}."


def sentence(finding: Finding) -> str:
    """A finding in one line, for places without markup; gate and reason both name the metric, a reader needs it once."""
    metric = finding.gate.partition(" ")[0]
    return f"{finding.gate}: {finding.reason.removeprefix(f'{metric} ')}"


def ordered(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Worst first, warnings after errors of the same outcome; the order of the budget otherwise."""
    return tuple(sorted(findings, key=lambda f: (_WORST_FIRST.index(f.outcome), f.level == "warn")))


def _context(story: Story) -> tuple[Block, ...]:
    """The data first; what goes beyond a few paragraphs is folded away."""
    words = tuple(Text(text=p) for p in (story.data, *story.paragraphs) if p)
    if len(words) <= _OPEN_PARAGRAPHS + 1:
        return words
    return (*words[:_OPEN_PARAGRAPHS], Fold(title="More about the data and the method", blocks=words[_OPEN_PARAGRAPHS:]))


def _verdict(report: Report) -> tuple[Block, ...]:
    blocks: list[Block] = []
    comparison, analysis, story = report.comparison, report.analysis, report.story
    if story is not None and story.generated:
        blocks.append(Text(text=f"The data is generated, not recorded from real users. {story.data}".strip(), tone="banner"))
    banner = generated_banner(comparison) if comparison is not None else ""
    if banner:
        blocks.append(Text(text=banner, tone="banner"))
    if comparison is not None:
        for instance in comparison.instances:
            if instance.invalid:
                blocks.append(Text(text=f"Latency on {instance.name} cannot be trusted: {'; '.join(instance.invalid)}.", tone="alarm"))
    if analysis is not None and not analysis.sample_ratio.ok:
        blocks.append(Text(text=analysis_tables.ratio_sentence(analysis), tone="alarm"))
    verdicts = report.verdicts
    offline = verdicts[: len(comparison.candidates)] if comparison is not None else ()
    if len(offline) > 1 and all(j.verdict is not None for j in offline):
        passed = [j.subject for j in offline if j.outcome is Outcome.PASS]
        names = f": {', '.join(passed)}" if passed else ""
        blocks.append(Text(text=f"{len(passed)} of {len(offline)} treatments passed{names}."))
    if len(offline) > 1 and all(j.verdict is None for j in offline):
        blocks.append(Text(text=f"{NO_BUDGET} Compared, {offline[0].against}: {', '.join(j.subject for j in offline)}."))
        verdicts = verdicts[len(offline) :]
    folded = len(verdicts) > _OPEN_CARDS
    blocks += [Judgement(judged=j, folded=folded) for j in verdicts]
    return tuple(blocks)


def _comparison(comparison: Comparison, curves: tuple[LatencyCurve, ...]) -> list[Section]:
    metric = comparison_tables.headline_metric(comparison)
    return [
        Section(name="models", title="Models side by side", blocks=_models(comparison)),
        Section(name="tradeoff", title="Accuracy against latency", blocks=_tradeoff(comparison, metric)),
        Section(name="segments", title="Segments", blocks=_segments(comparison, metric)),
        Section(name="rounds", title="Round by round", blocks=_rounds(comparison)),
        Section(name="distribution", title="Distribution of latencies", blocks=_distribution(comparison, curves)),
    ]


def _instance_heading(instance: InstanceLatency) -> Heading:
    return Heading(text=instance.name, label=instance.how if instance.rate_per_s is None else f"{instance.how}, {instance.what}")


def _models(comparison: Comparison) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for instance in comparison.instances:
        candidates = instance.candidates_per_request.value
        load = "an unknown number of" if candidates is None else f"{candidates:,.0f}"
        setting = f"{plural(instance.threads, 'thread')} on CPU {', '.join(map(str, instance.cpus)) or UNKNOWN}"
        blocks.append(_instance_heading(instance))
        if instance.note:
            blocks.append(Text(text=instance.note, tone="note"))
        if instance.invalid:
            blocks.append(Text(text=f"These numbers cannot be trusted: {'; '.join(instance.invalid)}.", tone="alarm"))
        if instance.unsteady and not instance.invalid:
            blocks.append(Text(text=unsteady_sentence(instance), tone="note"))
        blocks.append(comparison_tables.summary_table(comparison, instance))
        levels = figures.interval_level([e for m in instance.models for e in m.quantiles_ms.values()])
        reading = f"In brackets: {levels} intervals. {setting}, {load} candidates per request. A ratio below 1 means faster for latency; "
        blocks.append(Text(text=f"{reading}a ratio above 1 means better for quality.", tone="note"))
        more = (comparison_tables.change_table(instance), comparison_tables.start_table(instance))
        blocks.append(Fold(title="Every quantile against the control, cold start, samples", blocks=tuple(t for t in more if t.rows)))
    return tuple(blocks)


def _tradeoff(comparison: Comparison, metric: str | None) -> tuple[Block, ...]:
    if metric is None:
        return (Text(text="The requests carry no labels, so ranking quality is unknown.", tone="note"),)
    caption = "Up and to the left is better; a dashed arm of an interval has no known end. Intervals of two models may overlap although "
    caption += "the models differ: the ratios, paired by user and by round, decide."
    blocks: list[Block] = []
    for instance in comparison.instances:
        chart, missing, outside = figures.tradeoff(comparison, instance, metric)
        blocks.append(_instance_heading(instance))
        if chart:
            shaded = " Shaded: what breaks the budget." if 'class="zone"' in chart else ""
            blocks.append(Figure(svg=chart, caption=caption + shaded))
        if outside:
            far = "; ".join(f"{line.name} (at {line.value:.4g}{' ms' if line.axis == 'x' else ''})" for line in outside)
            blocks.append(Text(text=f"Budget lines outside the plot: {far}.", tone="note"))
        if missing:
            blocks.append(Text(text=f"Not drawn, because latency or {metric} is unknown: {', '.join(missing)}.", tone="note"))
    return tuple(blocks)


def _segments(comparison: Comparison, headline_metric: str | None) -> tuple[Block, ...]:
    blocks: list[Block] = []
    names = sorted(comparison_tables.metrics_of(comparison), key=lambda m: m != headline_metric)
    for metric in names:
        table = comparison_tables.segment_table(comparison, metric)
        if not table.rows:
            continue
        part: list[Block] = []
        chart = figures.segment_forest(comparison, metric)
        if chart:
            caption = "Treatment over control, same users under both. Right of the line is better; an interval across it decides nothing."
            part.append(Figure(svg=chart, caption=caption))
        part.append(table)
        blocks += [Heading(text=metric), *part] if metric == headline_metric else [Fold(title=f"{metric} per segment", blocks=tuple(part))]
    left_out = comparison_tables.undefined_requests(comparison)
    if blocks and left_out:
        blocks.append(Text(text=" ".join(left_out), tone="note"))
    return tuple(blocks)


def _rounds(comparison: Comparison) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for instance in comparison.instances:
        chart = figures.drift(comparison, instance)
        if chart:
            caption = "Each point is one round, in time order. The band is the interval of the ratio. A slope means that something drifted."
            blocks += [_instance_heading(instance), Figure(svg=chart, caption=caption)]
    return tuple(blocks)


def _distribution(comparison: Comparison, curves: tuple[LatencyCurve, ...]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for name in dict.fromkeys(c.instance for c in curves):
        chart = figures.distribution(comparison, curves, name)
        if chart:
            counted = sum(c.samples for c in curves if c.instance == name)
            label = next((i.how for i in comparison.instances if i.name == name), "")
            caption = f"{plural(counted, 'timed request')}. Further left is faster; the upper right corner is the tail."
            blocks += [Heading(text=name, label=label), Figure(svg=chart, caption=caption)]
    return tuple(blocks)


def _live(analysis: Analysis) -> tuple[Block, ...]:
    blocks: list[Block] = [analysis_tables.arms_table(analysis)]
    chart = figures.arm_intervals(analysis)
    levels = figures.interval_level([a.ctr for a in analysis.arms])
    if chart:
        blocks.append(Figure(svg=chart, caption=f"{levels} intervals, clustered by user."))
    blocks.append(Text(text=analysis_tables.ratio_sentence(analysis), tone="" if analysis.sample_ratio.ok else "alarm"))
    blocks.append(Fold(title="Users per arm", blocks=(analysis_tables.ratio_table(analysis),)))
    effects = analysis_tables.every_effect(analysis)
    if effects:
        blocks.append(Heading(text="Effect"))
        chart = figures.effect_forest(analysis)
        if chart:
            blocks.append(Figure(svg=chart, caption="Right of the line is better than the control; an interval across it decides nothing."))
        blocks.append(analysis_tables.effects_table(analysis))
        blocks.append(Bullets(items=tuple(f"{name}: {e.outcome.value}. {e.reason}" for name, e in analysis_tables.reasons(effects))))
    return tuple(blocks)


def _provenance(report: Report) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if report.comparison is not None:
        blocks += [comparison_tables.models_table(report.comparison), Facts(pairs=comparison_tables.facts(report.comparison))]
    if report.analysis is not None:
        blocks.append(Facts(pairs=analysis_tables.facts(report.analysis)))
    return tuple(blocks)


def _reproduce(report: Report) -> tuple[Block, ...]:
    commands = [c.command for c in (report.comparison, report.analysis) if c is not None and c.command]
    return tuple(Command(text=c) for c in commands)


def _limits(report: Report) -> tuple[str, ...]:
    items: list[str] = []
    comparison, analysis = report.comparison, report.analysis
    if comparison is not None:
        if any(i.rate_per_s is None for i in comparison.instances):
            items.append("Service time is that of the model alone: no network, no feature lookup, no waiting in a queue.")
        emulated = [i.name for i in comparison.instances if i.label == "emulated"]
        if emulated:
            words = "is" if len(emulated) == 1 else "are"
            items.append(f"{', '.join(emulated)} {words} imitated on another machine: trust the ratios more than the milliseconds.")
        extrapolated = [i.name for i in comparison.instances if i.label == "extrapolated"]
        if extrapolated:
            items.append(
                f"{', '.join(extrapolated)}: a part of it was imitated, and nothing else ran beside that part: trust the ratios only."
            )
        if comparison_tables.metrics_of(comparison):
            items.append("Offline quality is judged on logged requests: it cannot see what users would have done with other lists.")
        items += comparison.notes
    if analysis is not None:
        items += analysis.notes
    return tuple(items)
