"""One schedule answered by one process, and what several of them say about a model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.estimate import Estimate
from ...core.verdict import Outcome
from ..arrivals import Offsets
from ..launch import WorkerHandle
from ..protocol import ScheduleDone
from ..statistics import Launches, absolute_gate, quantile_estimate, t_interval
from .limits import LatencyLimit
from .result import Answer, LimitAnswer

# Requests in a queue depend on those before them: only batches of consecutive ones are nearly independent (batch means, Conway 1963).
BATCHES = 10
# Each schedule begins with an empty queue; the first requests find a shorter one than later ones do and are not counted.
_FILLING = 0.05
_WARMUP = 10
# Of the schedule's length: how long the queue may need to empty after the last arrival before there is no steady state to speak of.
_BACKLOG = 0.10
# Relaxation times that a schedule must last before its quantiles are those of the steady state: with fewer, intervals of simulated M/D/1
# queues at 80 and 90 % load lay below the true p95 more often than they should.
_RELAXATIONS = 20
# How long after its end, again of its length, a schedule is given up.
_PATIENCE, _PATIENCE_NS = 0.5, 500_000_000


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """When requests were due and what became of those that were answered, int64 nanoseconds in order of arrival."""

    requests: npt.NDArray[np.int64]
    due_ns: Offsets
    latency_ns: npt.NDArray[np.int64]
    service_ns: npt.NDArray[np.int64]
    lag_ns: npt.NDArray[np.int64]
    wait: tuple[int, int] | None

    @property
    def unanswered(self) -> int:
        return len(self.due_ns) - len(self.latency_ns)

    @property
    def span_ns(self) -> int:
        """From the start to the last arrival."""
        return int(self.due_ns[-1])

    @property
    def end_ns(self) -> int:
        """From the start to the last answer."""
        answered = len(self.latency_ns)
        return int((self.due_ns[:answered] + self.latency_ns).max()) if answered else self.span_ns

    def batches(self, ns: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        """`ns` of what counts, as at most ten batches of consecutive requests."""
        counted = ns[int(_FILLING * len(ns)) :]
        return tuple(np.array_split(counted, min(BATCHES, len(counted))))


def play(worker: WorkerHandle, requests: npt.NDArray[np.int64], due_ns: Offsets, servers: int) -> Trial:
    """Have `worker` answer `requests` when they are due."""
    give_up_ns = int(due_ns[-1] * (1 + _PATIENCE)) + _PATIENCE_NS
    done = worker.schedule(tuple(requests.tolist()), tuple(due_ns.tolist()), warmup=_WARMUP, servers=servers, give_up_ns=give_up_ns)
    return trial_of(requests, due_ns, done)


def trial_of(requests: npt.NDArray[np.int64], due_ns: Offsets, done: ScheduleDone) -> Trial:
    """A worker's answer next to what it was asked."""
    latency, service, lag = (np.frombuffer(part, dtype="<i8").astype(np.int64) for part in (done.latency, done.service, done.lag))
    return Trial(requests=requests, due_ns=due_ns, latency_ns=latency, service_ns=service, lag_ns=lag, wait=done.wait)


def utilisation(trial: Trial, servers: int) -> float:
    """Share of the servers' time that the requests that came would need: above 1 the queue has no end."""
    answered = max(len(trial.service_ns), 1)
    return float(trial.service_ns.sum()) * len(trial.due_ns) / answered / (servers * trial.span_ns)


def requests_to_settle(used: float, arrivals_cv: float, service_cv: float) -> float:
    """How many requests a queue needs before it has forgotten that it began empty; infinite where it never does.

    Twenty relaxation times of about (ca^2 + cs^2) / 2 / (1 - sqrt(load))^2 service times each: that of M/M/1 (Morse 1955), scaled by the
    variability of gaps and service as delays are in heavy traffic.
    """
    if used >= 1:
        return math.inf
    return _RELAXATIONS * (arrivals_cv**2 + service_cv**2) / 2 / (1 - math.sqrt(used)) ** 2


def unsettled(trials: Sequence[Trial], servers: int) -> str | None:
    """Why quantiles may be too low: the schedules were too short for a queue this busy; None when they were long enough."""
    used = float(np.mean([utilisation(trial, servers) for trial in trials]))
    gaps = np.concatenate([np.diff(trial.due_ns) for trial in trials])
    service = np.concatenate([trial.service_ns for trial in trials])
    needed = requests_to_settle(used, variation(gaps), variation(service))
    had = min(len(trial.due_ns) for trial in trials)
    if had >= needed or used >= 1:
        return None
    return f"a queue that is {used:.0%} busy needs about {math.ceil(needed):,} requests to settle, a launch had {had:,}"


def variation(ns: npt.NDArray[np.int64]) -> float:
    """Standard deviation over mean."""
    mean = float(ns.mean()) if len(ns) else 0.0
    return float(ns.std()) / mean if mean > 0 else 0.0


def overload(trials: Sequence[Trial], servers: int) -> str | None:
    """Why a queue has no steady state at this rate; None when nothing says so."""
    used = float(np.mean([utilisation(trial, servers) for trial in trials]))
    unanswered, asked = sum(trial.unanswered for trial in trials), sum(len(trial.due_ns) for trial in trials)
    backlog = float(np.mean([(trial.end_ns - trial.span_ns) / trial.span_ns for trial in trials]))
    work = f"the requests need {used:.0%} of the time of {servers} server{'s' if servers > 1 else ''}"
    if unanswered:
        return f"{work}; {unanswered:,} of {asked:,} were not begun long after the last had come"
    if used >= 1:
        return work
    if backlog > _BACKLOG:
        return f"{work}, and after the last had come the queue needed {backlog:.0%} of the whole time to empty"
    return None


def latencies(trials: Sequence[Trial]) -> Launches:
    """Latency in batches; a request that was never begun counts as slower than every other."""
    worst = max((int(trial.latency_ns.max()) for trial in trials if len(trial.latency_ns)), default=1)
    return [trial.batches(np.append(trial.latency_ns, np.full(trial.unanswered, worst, dtype=np.int64))) for trial in trials]


def services(trials: Sequence[Trial]) -> Launches:
    """Service time in batches."""
    return [trial.batches(trial.service_ns) for trial in trials if len(trial.service_ns)]


def lag_ms(trials: Sequence[Trial], p: float) -> float:
    """Quantile `p` of how late the servers were themselves."""
    return float(np.quantile(np.concatenate([trial.lag_ns for trial in trials]), p)) / 1e6


def over_trials(values: Sequence[float]) -> Estimate:
    """Geometric mean over processes of something positive, with Student's t interval of its logarithms."""
    value, low, high = t_interval(np.log(np.asarray(values, dtype=np.float64)), 0.95)
    bounds = [None if bound is None else math.exp(bound) for bound in (low, high)]
    return Estimate(value=math.exp(value), low=bounds[0], high=bounds[1], n=len(values))


def quantile(trials: Sequence[Trial], p: float, servers: int) -> Estimate:
    """Quantile `p` of latency in ms; without bounds where the queue may not have settled, as they would be too low."""
    found = quantile_estimate(latencies(trials), p)
    return found if unsettled(trials, servers) is None else msgspec.structs.replace(found, low=None, high=None)


def answer(trials: Sequence[Trial], limit: LatencyLimit, servers: int) -> LimitAnswer:
    """Whether the limit is kept.

    An overloaded queue keeps none, whatever the first seconds of it looked like; one that has not settled may miss but not meet a limit.
    """
    found = quantile(trials, limit.p, servers)
    if overload(trials, servers) is not None:
        return LimitAnswer(limit=limit, answer="misses", found_ms=found)
    outcome = absolute_gate(latencies(trials), limit.p, limit.limit_ms, limit.alpha).outcome
    words: dict[Outcome, Answer] = {Outcome.FAIL: "misses"}
    if unsettled(trials, servers) is None:
        words[Outcome.PASS] = "meets"
    return LimitAnswer(limit=limit, answer=words.get(outcome, "unclear"), found_ms=found)


def answer_of(fresh: Trial, all_at_rate: Sequence[Trial], limits: Sequence[LatencyLimit], *, servers: int) -> Answer:
    """What a fresh trial says about all limits; where it cannot tell alone, what it says together with earlier ones at its rate."""
    alone = together([answer([fresh], limit, servers) for limit in limits])
    if alone != "unclear" or len(all_at_rate) == 1:
        return alone
    return together([answer(all_at_rate, limit, servers) for limit in limits])


def together(answers: Sequence[LimitAnswer]) -> Answer:
    """All limits as one: missed when one is, met when all are."""
    found = {one.answer for one in answers}
    return "misses" if "misses" in found else "unclear" if "unclear" in found else "meets"
