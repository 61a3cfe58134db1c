"""From logs to a decision: CTR per arm, the sample-ratio check, the effect of every treatment, and how many users are still missing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.columns import ALL_SEGMENTS
from ..core.multiplicity import holm
from ..core.verdict import Finding, Outcome, judge
from .config import Experiment, read_experiment
from .logs import ArmLog, LogSummary, summarise
from .result import Analysis, ArmResult, Effect, SampleRatio
from .statistics import Difference, RatioSums, difference, null_difference, ratio_estimate, sample_ratio_p, users_per_arm

# As GrowthBook: at 0.05 one healthy experiment in twenty would be thrown away.
SAMPLE_RATIO_THRESHOLD = 0.001
# Fewer clicks than this, in the control or expected at its rate in the treatment, cannot carry a decision: the usual rule for the
# normal approximation of a two by two table (Cochran, "Some Methods for Strengthening the Common chi^2 Tests", Biometrics 10, 1954,
# asks for 5 to 10). Expected ones count, not observed ones: a treatment that nobody clicks on any more is a finding.
MINIMUM_CLICKS = 10

NOTES = (
    "users are analysed in the arm they were assigned to, whichever model answered (intention to treat)",
    "intervals and p-values hold for one look at a planned sample size; looking repeatedly until something shows raises false alarms",
)


def analyse(experiment: Path | str | Experiment, logs: Path | str, *, segments: bool = True, command: str = "") -> Analysis:
    """Analyse the logs of an experiment.

    A treatment's outcome is PASS when the interval of its relative CTR effect lies above 0, FAIL when it lies below 0, UNDECIDED
    otherwise (with the users still needed to see the experiment's smallest interesting effect), and INVALID when users did not fall
    into the arms as configured. With several treatments each interval is at 1 - alpha / treatments (Bonferroni). Segments
    are judged by Holm-adjusted p-values and only warn: they never change the verdict. Raises InputError for a bad experiment or
    a folder without logs.
    """
    config = experiment if isinstance(experiment, Experiment) else read_experiment(Path(experiment))
    summary = summarise(config, Path(logs))
    sample_ratio = check_sample_ratio(config, {name: arm.sums.users for name, arm in summary.arms.items()})
    alpha = config.alpha / len(config.treatments)
    sums = {name: arm.sums for name, arm in summary.arms.items()}
    effects = tuple(_effect(config, sums, arm.name, ALL_SEGMENTS, alpha=alpha, trusted=sample_ratio.ok) for arm in config.treatments)
    found = _segment_effects(config, summary, trusted=sample_ratio.ok) if segments else ()
    verdict = judge([_sample_ratio_finding(sample_ratio), *_findings(effects, "error"), *_findings(found, "warn")])
    if verdict is None:
        raise AssertionError("the sample ratio is always a finding")
    return Analysis(
        experiment=config.name,
        salt=config.effective_salt,
        metric=config.metric,
        control=config.control,
        arms=tuple(_arm_result(config, arm.name, arm.model, summary.arms[arm.name]) for arm in config.arms),
        sample_ratio=sample_ratio,
        effects=effects,
        segments=found,
        verdict=verdict,
        first_exposure_at=summary.first_at.isoformat() if summary.first_at else None,
        last_exposure_at=summary.last_at.isoformat() if summary.last_at else None,
        ignored=summary.ignored,
        command=command,
        notes=(*NOTES, *_notes(summary)),
    )


def check_sample_ratio(experiment: Experiment, observed: Mapping[str, int]) -> SampleRatio:
    """Compare users per arm with the configured weights."""
    shares = experiment.shares
    p_value = sample_ratio_p([observed[name] for name in shares], list(shares.values()))
    return SampleRatio(
        expected=shares,
        observed={name: observed[name] for name in shares},
        p_value=p_value,
        threshold=SAMPLE_RATIO_THRESHOLD,
        ok=p_value is None or p_value >= SAMPLE_RATIO_THRESHOLD,
    )


def _arm_result(experiment: Experiment, name: str, model: str, log: ArmLog) -> ArmResult:
    return ArmResult(
        arm=name,
        model=model,
        users=log.sums.users,
        exposures=log.exposures,
        impressions=int(log.sums.k),
        clicks=int(log.sums.c),
        ctr=ratio_estimate(log.sums, level=1 - experiment.alpha),
        latency_p50_ms=log.latency_p50_ms,
        latency_p95_ms=log.latency_p95_ms,
    )


def _effect(
    experiment: Experiment,
    sums: Mapping[str, RatioSums],
    treatment: str,
    segment: str,
    *,
    alpha: float,
    trusted: bool,
    adjusted_p: float | None = None,
) -> Effect:
    """One treatment on one segment; with `adjusted_p` (Holm) that decides instead of the interval."""
    a, b = sums.get(experiment.control, RatioSums()), sums.get(treatment, RatioSums())
    found = _compare(a, b, alpha)
    needed = _users_needed(experiment, a, b, treatment, alpha)
    p_value = found.p_value if adjusted_p is None else adjusted_p
    outcome, reason = _judge_effect(a, b, found, p_value, alpha if adjusted_p is None else experiment.alpha)
    if outcome is Outcome.UNDECIDED:
        reason += _still_needed(experiment, b, needed, treatment)
    if not trusted:
        outcome, reason = (
            Outcome.INVALID,
            f"users did not fall into the arms as configured (sample ratio mismatch); it would read: {reason}",
        )
    return Effect(
        treatment=treatment,
        segment=segment,
        absolute=found.absolute,
        relative=found.relative,
        p_value=p_value,
        design_effect=_pooled_design_effect(a, b),
        users_needed=needed,
        outcome=outcome,
        reason=reason,
    )


def _expected_clicks(a: RatioSums, b: RatioSums) -> float:
    """Clicks the treatment would have at the control's rate."""
    return (a.ratio or 0.0) * b.k


def _compare(a: RatioSums, b: RatioSums, alpha: float) -> Difference:
    """By the treatment's own variance; under the null's where it has too few clicks to tell it although enough were to be expected."""
    few = b.c < MINIMUM_CLICKS <= min(a.c, _expected_clicks(a, b))
    return (null_difference if few else difference)(a, b, level=1 - alpha)


def _judge_effect(a: RatioSums, b: RatioSums, found: Difference, p_value: float | None, alpha: float) -> tuple[Outcome, str]:
    for arm, sums in (("control", a), ("treatment", b)):
        if sums.users == 0:
            return Outcome.UNDECIDED, f"the {arm} arm has no users"
        if sums.users == 1:
            return Outcome.UNDECIDED, f"the {arm} arm has one user, which says nothing about others"
    expected = _expected_clicks(a, b)
    for clicks, text in (
        (a.c, f"the control arm has {a.c:.0f} clicks"),
        (expected, f"the treatment arm would have {expected:.1f} clicks at the control's rate (it has {b.c:.0f})"),
    ):
        if clicks < MINIMUM_CLICKS:
            return Outcome.UNDECIDED, f"{text}, too few for an interval to be trusted (at least {MINIMUM_CLICKS})"
    relative, absolute = found.relative, found.absolute
    if relative.value is None or absolute.low is None or p_value is None:
        return Outcome.UNDECIDED, "users do not vary, so there is no interval"
    if relative.low is not None:
        text = f"relative CTR {relative.text(digits=2, scale=100)} %, p = {p_value:.4f}"
    else:
        text = f"{b.c:,.0f} clicks where the control's rate gives {expected:,.0f}"
        text += f", absolute CTR {absolute.text(digits=3, scale=100)} percentage points, p = {p_value:.4f}"
    if p_value >= alpha:
        return Outcome.UNDECIDED, f"{text}: the data fit no effect as well"
    return (Outcome.PASS, f"{text}: better than the control") if relative.value > 0 else (Outcome.FAIL, f"{text}: worse than the control")


def _users_needed(experiment: Experiment, a: RatioSums, b: RatioSums, treatment: str, alpha: float) -> int | None:
    """Users in the treatment arm, at the configured split, to see the smallest interesting effect."""
    ratio, va, vb = a.ratio, a.user_variance, b.user_variance
    if not ratio or va is None or vb is None:
        return None
    split = experiment.shares[experiment.control] / experiment.shares[treatment]
    return users_per_arm(va, vb, experiment.minimum_relative_effect * ratio, alpha=alpha, power=experiment.power, ratio=split)


def _still_needed(experiment: Experiment, b: RatioSums, needed: int | None, treatment: str) -> str:
    if needed is None:
        return "; how many users are needed cannot be told from this data yet"
    effect = f"a relative effect of {experiment.minimum_relative_effect:.1%} with {experiment.power:.0%} power"
    total = round(needed / experiment.shares[treatment])
    if needed <= b.users:
        return f"; {needed:,} users in the treatment arm see {effect} and it has {b.users:,}: the effect is likely smaller than that"
    return f"; {needed - b.users:,} more users needed in the treatment arm ({needed:,} there, {total:,} enrolled in all) to see {effect}"


def _pooled_design_effect(a: RatioSums, b: RatioSums) -> float | None:
    """Mean of the arms' design effects, weighted by impressions; None when an arm cannot give its own."""
    da, db = a.design_effect, b.design_effect
    return None if da is None or db is None else (da * a.k + db * b.k) / (a.k + b.k)


def _segment_effects(experiment: Experiment, summary: LogSummary, *, trusted: bool) -> tuple[Effect, ...]:
    names = experiment.segments or tuple(summary.segments)
    cases = [(segment, arm.name, summary.segments.get(segment, {})) for segment in names for arm in experiment.treatments]
    raw = {
        i: p
        for i, (_, treatment, sums) in enumerate(cases)
        if (p := _compare(sums.get(experiment.control, RatioSums()), sums.get(treatment, RatioSums()), experiment.alpha).p_value)
        is not None
    }
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return tuple(
        _effect(experiment, sums, treatment, segment, alpha=experiment.alpha, trusted=trusted, adjusted_p=adjusted.get(i))
        for i, (segment, treatment, sums) in enumerate(cases)
    )


def _sample_ratio_finding(check: SampleRatio) -> Finding:
    counts = ", ".join(f"{name} {check.observed[name]:,} users ({check.expected[name]:.0%} configured)" for name in check.expected)
    if check.p_value is None:
        return Finding(outcome=Outcome.UNDECIDED, gate="sample_ratio", reason="no enrolled user was seen")
    sign = ">=" if check.ok else "<"
    outcome = Outcome.PASS if check.ok else Outcome.INVALID
    return Finding(outcome=outcome, gate="sample_ratio", reason=f"{counts}: p = {check.p_value:.2g} {sign} {check.threshold}")


def _findings(effects: tuple[Effect, ...], level: str) -> list[Finding]:
    return [
        Finding(
            outcome=effect.outcome,
            gate=f"ctr {effect.treatment}" + ("" if effect.segment == ALL_SEGMENTS else f" [{effect.segment}]"),
            reason=effect.reason,
            level="error" if level == "error" else "warn",
        )
        for effect in effects
    ]


def _notes(summary: LogSummary) -> list[str]:
    notes = []
    for name, arm in summary.arms.items():
        if arm.fallbacks:
            notes.append(f"arm {name}: {arm.fallbacks:,} of {arm.exposures:,} exposures were answered by the control (fallback)")
        if len(arm.digests) > 1:
            notes.append(f"arm {name}: {len(arm.digests)} different models answered under this salt")
    return notes
