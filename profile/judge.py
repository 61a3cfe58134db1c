"""From measurements and a budget to findings: every gate's outcome with its reason.

What is measured in launches is looked at three times at most, after planned numbers of them, each time with a third of its alpha
(Bonferroni); only the rounds' part of relative latency gates may be asked at any time (`sequential.py`). Absolute times are not looked at
the first time, when what disturbs a machine now and then may not have come yet.

PASS needs every gate to pass, so it needs no correction; FAIL of any gate decides, so p-values of failing are Holm-adjusted over the gates
of a level: warnings decide nothing, so they must not make errors harder to see.
A number emulated for an instance may fail an absolute gate but pass it only if the gate says `allow = "emulated"`: a wrong FAIL costs a run
on the real machine, a wrong PASS an outage. An extrapolated one decides no absolute time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np

from ..core.artifact import ModelRef
from ..core.estimate import Estimate
from ..core.multiplicity import holm
from ..core.verdict import Finding, Outcome, Verdict, judge
from ..quality.evaluate import PairedPart
from .budget import LATENCY, Budget, Conditions, Gate, Max, MaxDrop, MaxRegress
from .inputs import MOST_LAUNCHES
from .measure import Run, lag_reasons
from .result import Label
from .sequential import FALSE_ALARM, FEWEST_LAUNCHES, detectable, paired_rounds, planned_looks, relative_gate, requests_per_round
from .statistics import Decision, absolute_gate, mean_gate, quantile_estimate, resampled_gate, t_interval

# Percentile intervals of a mean over fewer users cover too rarely to decide on.
FEWEST_USERS = 20
# Nobody waits longer for a gate.
LONGEST_MINUTES = 12 * 60


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one treatment against the control: `model` is its number in every run, the control is 0."""

    control: ModelRef
    treatment: ModelRef
    model: int
    runs: Mapping[Conditions, Run]
    quality: tuple[PairedPart, ...]


class _Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """A decision and the sentence about it, before gates are looked at together.

    What `decision.more` multiplies: `launches` where there are any (one value each), else `measured_s` where there is any, else users.
    """

    decision: Decision
    found: str
    limit: str
    upper: bool
    tail: str = ""
    settled: bool = False
    measured_s: float = 0.0
    launches: int = 0


def clear(budget: Budget, evidence: Sequence[Evidence], at: Conditions) -> bool:
    """Whether more measuring under these conditions would change no gate of any treatment.

    Gates that are judged elsewhere count in Holm's correction as if their p-values were 1: a FAIL that ends the measuring stays one.
    """
    gates = [g for g in budget.gates if g.at == at]
    elsewhere = Counter[str](g.level for g in budget.gates if g.at != at and (g.at is not None or g.is_quality))
    return all(all(_clear(gates, one, elsewhere)) for one in evidence)


def _clear(gates: Sequence[Gate], evidence: Evidence, elsewhere: Mapping[str, int]) -> Iterator[bool]:
    for _, ruling, finding in _findings(gates, evidence, elsewhere):
        yield ruling.settled or finding.outcome in (Outcome.PASS, Outcome.FAIL)


def verdict(budget: Budget, evidence: Evidence) -> Verdict | None:
    """One finding per gate, in the budget's order."""
    return judge(finding for _, _, finding in _findings(budget.gates, evidence, {}))


def _findings(gates: Sequence[Gate], evidence: Evidence, elsewhere: Mapping[str, int]) -> list[tuple[Gate, _Ruling, Finding]]:
    """Every gate's finding; `elsewhere` counts further gates of a level."""
    rulings = [_rule(gate, evidence) for gate in gates]
    findings: dict[int, Finding] = {}
    for level in ("error", "warn"):
        family = {i: rulings[i] for i, gate in enumerate(gates) if gate.level == level}
        tested = {i: ruling.decision.p_fail for i, ruling in family.items() if ruling.decision.p_fail is not None}
        p_values = [*tested.values(), *[1.0] * elsewhere.get(level, 0)]
        adjusted = dict(zip(tested, holm(p_values), strict=False))
        findings |= {i: _finding(gates[i], ruling, adjusted.get(i), len(p_values)) for i, ruling in family.items()}
    return [(gate, rulings[i], findings[i]) for i, gate in enumerate(gates)]


def _false_alarm(gate: Gate) -> float:
    """How likely FAIL may be wrong: for relative latencies 1 % at most, as these are what noise makes fail."""
    return min(gate.alpha, FALSE_ALARM) if gate.metric in LATENCY and isinstance(gate.limit, MaxRegress) else gate.alpha


def _finding(gate: Gate, ruling: _Ruling, adjusted: float | None, family: int) -> Finding:
    decision, outcome = ruling.decision, ruling.decision.outcome
    why = decision.why
    if outcome is Outcome.FAIL and adjusted is not None and adjusted >= _false_alarm(gate):
        outcome, why = Outcome.UNDECIDED, f"fails alone, not after Holm's correction over {family} gates (p = {adjusted:.3g})"
    sign = {Outcome.PASS: "<=" if ruling.upper else ">=", Outcome.FAIL: ">" if ruling.upper else "<"}.get(outcome, "against")
    reason = why if outcome is Outcome.INVALID or not ruling.found else f"{ruling.found} {sign} {ruling.limit}{ruling.tail}"
    if outcome is Outcome.UNDECIDED:
        more = _more(decision.more, ruling)
        why = why or ("" if more else "too little was measured to tell; give twice --seconds or --launches")
        reason = f"{reason}: {why}" if why and ruling.found else reason
        reason += more
    elif why and outcome is not Outcome.INVALID and ruling.found:
        reason += f"; {why}"
    return Finding(outcome=outcome, gate=gate.name, reason=f"{gate.metric} {reason}", level=gate.level)


def _more(more: float | None, ruling: _Ruling) -> str:
    """How much more data would decide, in words: launches, minutes of measuring, or users."""
    if more is None or more <= 1.0:
        return ""
    if ruling.launches:
        needed = math.ceil(more * ruling.launches)
        undecidable = "; not decidable with a reasonable number of launches"
        return undecidable if needed > MOST_LAUNCHES else f"; about {needed} launches would decide (--launches {needed})"
    if not ruling.measured_s:
        return "; not decidable with a reasonable number of users" if more >= 1000 else f"; about {_times(more)} the users would decide"
    minutes = (more - 1) * ruling.measured_s / 60
    if minutes > LONGEST_MINUTES:
        return "; not decidable with a reasonable time of measuring"
    return f"; about {_minutes(minutes)} more of measuring would decide (--seconds {math.ceil(more * ruling.measured_s * 1.1):d})"


def _times(more: float) -> str:
    return f"{more:.0f} times" if more >= 10 else f"{more:.1f} times"


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return f"{max(1, math.ceil(60 * minutes))} s"
    return f"{minutes:.0f} minutes" if minutes >= 9.5 else f"{minutes:.1f} minutes"


def _rule(gate: Gate, evidence: Evidence) -> _Ruling:
    if gate.is_quality:
        return _rule_quality(gate, evidence.quality)
    if gate.at is None:
        return _rule_size(gate, evidence)
    run = evidence.runs[gate.at]
    tail = f" on {gate.at.name} ({run.placement.label})"
    spoiled = run.invalid + _late(gate, run, evidence.model)
    if spoiled or (run.unsteady and isinstance(gate.limit, Max) and gate.is_time):
        decision = Decision(outcome=Outcome.INVALID, p_fail=None, why=f"cannot be trusted{tail}: {'; '.join(spoiled or run.unsteady)}")
        return _Ruling(decision=decision, found="", limit=gate.limit.text, upper=True)
    ruling = _rule_latency(gate, evidence, run) if gate.metric in LATENCY else _rule_launches(gate, evidence, run)
    ruling = msgspec.structs.replace(ruling, tail=tail, measured_s=run.measured_s)
    timed = isinstance(gate.limit, Max) and gate.is_time
    why = _not_for_this_machine(gate, ruling.decision.outcome, run.placement.label) if timed else ""
    if why:
        p_fail = None if run.placement.label == "extrapolated" else ruling.decision.p_fail
        decision = Decision(outcome=Outcome.UNDECIDED, p_fail=p_fail, why=why)
        return msgspec.structs.replace(ruling, decision=decision, settled=ruling.decision.outcome is not Outcome.UNDECIDED)
    return ruling


def _not_for_this_machine(gate: Gate, outcome: Outcome, label: Label) -> str:
    """Why an absolute time that was not measured on the instance itself may not decide so; empty where it may."""
    if label == "extrapolated":
        return "an extrapolated time decides no absolute limit: measure on the instance itself"
    if label == "emulated" and outcome in (Outcome.PASS, Outcome.UNDECIDED) and not gate.emulated_may_pass:
        return 'an emulated number may only pass an absolute limit with allow = "emulated"'
    return ""


def _late(gate: Gate, run: Run, model: int) -> tuple[str, ...]:
    """Whether an open loop began requests too late for this gate: against its limit, or p95 where it has none in ms."""
    if run.lag_p99_ms is None:
        return ()
    if isinstance(gate.limit, Max):
        return lag_reasons(run.lag_p99_ms, {gate.limit.text: gate.limit.value})
    pooled = np.concatenate([block for launch in run.samples.of(model) for block in launch])
    return lag_reasons(run.lag_p99_ms, {"p95": float(np.quantile(pooled, 0.95)) / 1e6})


def _rule_latency(gate: Gate, evidence: Evidence, run: Run) -> _Ruling:
    p, treatment = LATENCY[gate.metric], run.samples.of(evidence.model)
    if isinstance(gate.limit, Max):
        limit_ms = gate.limit.value
        estimate = quantile_estimate(treatment, p, 1 - 2 * gate.alpha)
        points = planned_looks(run.planned)
        decision = _looked(
            run,
            lambda done, looks: _corrected(absolute_gate(treatment[:done], p, limit_ms, gate.alpha / looks), looks),
            points[1:] or points,
        )
        return _Ruling(decision=decision, found=_ms(estimate), limit=gate.limit.text, upper=True)
    control, margin = run.samples.of(0), gate.limit.value

    def asked(done: int, looks: int) -> Decision:
        so_far = paired_rounds(control[:done], treatment[:done], p)
        return relative_gate(so_far, margin, gate.alpha, _false_alarm(gate), looks=looks)

    paired = paired_rounds(control, treatment, p)
    decision = _looked(run, asked)
    if len(paired.launches) < FEWEST_LAUNCHES:
        needed, fewest = requests_per_round(p), min(sum(map(len, launch)) for launch in treatment)
        if fewest < needed:
            why = f"needs at least {needed} requests per launch, has {fewest}"
            decision = msgspec.structs.replace(decision, why=why, more=needed / fewest)
        elif run.planned < FEWEST_LAUNCHES:
            decision = msgspec.structs.replace(decision, more=None)
    elif decision.outcome is Outcome.UNDECIDED:
        told = detectable(paired, gate.alpha)
        why = "these data tell no margin" if told is None else f"these data tell margins of {told:.1%} and more"
        why += ", and more time would not help: give a wider max_regress, or a quieter machine" if decision.more is None else ""
        decision = msgspec.structs.replace(decision, why=why)
    return _ratio_ruling(paired.estimate(1 - 2 * gate.alpha), decision, gate, evidence.control)


def _looked(run: Run, decide: Callable[[int, int], Decision], points: Sequence[int] = ()) -> Decision:
    """The first look that decides, else the last one; `decide` gets the launches of a look, and how many looks to correct for.

    `points` are the looks, all that were planned when there are none.
    """
    points = points or planned_looks(run.planned)
    done = len({b.launch for b in run.samples.blocks})
    decision = Decision(outcome=Outcome.UNDECIDED, p_fail=None, more=points[0] / done, why=f"is first looked at after {points[0]} launches")
    for point in points:
        if point > done:
            break
        decision = decide(point, len(points))
        if decision.outcome in (Outcome.PASS, Outcome.FAIL):
            break
    return decision


def _corrected(decision: Decision, looks: int) -> Decision:
    """Bonferroni: a p-value that is looked at several times, each time with its share of alpha."""
    return decision if decision.p_fail is None else msgspec.structs.replace(decision, p_fail=min(1.0, decision.p_fail * looks))


def _rule_launches(gate: Gate, evidence: Evidence, run: Run) -> _Ruling:
    """Metrics with one value per launch: cold start (load and first request) in ms, memory in bytes; averages of logs when relative."""
    relative = isinstance(gate.limit, MaxRegress)
    if gate.metric == "memory" and _memory_unknown(run, (0, evidence.model) if relative else (evidence.model,)):
        decision = Decision(outcome=Outcome.UNDECIDED, p_fail=None, why="the kernel does not tell")
        return _Ruling(decision=decision, found="unknown", limit=_limit_text(gate, evidence.control), upper=True)
    control, treatment = (_per_launch(gate.metric, run, model) for model in (0, evidence.model))
    scale, unit = (1.0, "ms") if gate.metric == "cold_start" else (2.0**20, "MiB")
    if isinstance(gate.limit, Max):
        values, limit = treatment, gate.limit.value
    else:
        values, limit = np.log(treatment / control), math.log1p(gate.limit.value)
    if len(values) < FEWEST_LAUNCHES:
        decision = Decision(outcome=Outcome.UNDECIDED, p_fail=None, why=f"needs at least {FEWEST_LAUNCHES} launches, has {len(values)}")
    else:
        decision = _looked(run, lambda done, looks: _corrected(mean_gate(values[:done], limit, gate.alpha / looks), looks))
    value, low, high = t_interval(values, 1 - 2 * gate.alpha)
    if isinstance(gate.limit, Max):
        number, interval = _number(Estimate(value=value, low=low, high=high, n=len(values), level=1 - 2 * gate.alpha), 1 / scale)
        return _Ruling(decision=decision, found=f"{number} {unit} {interval}", limit=gate.limit.text, upper=True, launches=len(values))
    bounds = [None if v is None else math.exp(v) for v in (value, low, high)]
    ratio = Estimate(value=bounds[0], low=bounds[1], high=bounds[2], n=len(values), level=1 - 2 * gate.alpha)
    return msgspec.structs.replace(_ratio_ruling(ratio, decision, gate, evidence.control), launches=len(values))


def _memory_unknown(run: Run, models: Sequence[int]) -> bool:
    return any(launch.ended.memory_bytes is None for launch in run.launches if launch.model in models)


def _per_launch(metric: str, run: Run, model: int) -> np.ndarray:
    mine = [launch for launch in run.launches if launch.model == model]
    if metric == "memory":
        return np.asarray([launch.ended.memory_bytes for launch in mine], dtype=np.float64)
    return np.asarray([(launch.ready.load_ns + launch.ready.first_request_ns) / 1e6 for launch in mine])


def _rule_size(gate: Gate, evidence: Evidence) -> _Ruling:
    """Size is counted, not measured: no interval, never undecided."""
    size, base = evidence.treatment.size_bytes, evidence.control.size_bytes
    relative = isinstance(gate.limit, MaxRegress)
    limit = base * (1 + gate.limit.value) if relative else gate.limit.value
    found = f"{size / 2**20:.2f} MiB" + (f" ({size / base:.3f} of {evidence.control.name})" if relative and base else "")
    decision = Decision(outcome=Outcome.PASS if size <= limit else Outcome.FAIL, p_fail=None)
    return _Ruling(decision=decision, found=found, limit=_limit_text(gate, evidence.control), upper=True)


def _rule_quality(gate: Gate, parts: Sequence[PairedPart]) -> _Ruling:
    part = next((p for p in parts if (p.metric, p.segment) == (gate.metric, gate.segment)), None)
    if part is None:
        why = (
            "cannot be judged: the requests carry no labels"
            if not parts
            else f"cannot be judged: no request is in segment '{gate.segment}'"
        )
        return _Ruling(decision=Decision(outcome=Outcome.UNDECIDED, p_fail=None, why=why), found="", limit=gate.limit.text, upper=False)
    relative = isinstance(gate.limit, MaxDrop)
    resampled = part.paired.ratio if relative else part.paired.treatment
    floor = 1 - gate.limit.value if relative else gate.limit.value
    estimate = resampled.estimate(1 - 2 * gate.alpha)
    if resampled.value is None or resampled.users < FEWEST_USERS or not len(resampled.draws):
        why = f"needs at least {FEWEST_USERS} users whose ranking can be judged, has {resampled.users}"
        decision = Decision(outcome=Outcome.UNDECIDED, p_fail=None, why=why)
    else:
        decision = resampled_gate(resampled.value, resampled.draws, floor, gate.alpha, resampled.users)
    return _Ruling(
        decision=decision,
        found=f"ratio {estimate.text(4)}" if relative else estimate.text(4),
        limit=f"{floor:.6g}" if relative else gate.limit.text,
        upper=False,
        tail=f" for {gate.segment} ({resampled.users} users)" if gate.segment != "all" else f" ({resampled.users} users)",
    )


def _ratio_ruling(estimate: Estimate, decision: Decision, gate: Gate, control: ModelRef) -> _Ruling:
    return _Ruling(decision=decision, found=f"ratio {estimate.text(3)}", limit=_limit_text(gate, control), upper=True)


def _limit_text(gate: Gate, control: ModelRef) -> str:
    """The limit as a sentence ends with it: `20 ms`, `1.05 x v1.0`."""
    return f"{1 + gate.limit.value:.4g} x {control.name}" if isinstance(gate.limit, MaxRegress) else gate.limit.text


def _ms(estimate: Estimate) -> str:
    number, interval = _number(estimate, 1.0)
    return f"{number} ms {interval}"


def _number(estimate: Estimate, scale: float) -> tuple[str, str]:
    """Value and `[low, high]` with three telling digits."""
    size = abs(estimate.value or 1.0) * scale
    digits = max(0, 2 - math.floor(math.log10(size))) if size > 0 else 0
    number, _, interval = estimate.text(digits, scale).partition(" ")
    return number, interval
