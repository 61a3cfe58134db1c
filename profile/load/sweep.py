"""`sweep`: the highest rate at which a model keeps its latency limits, and what a million requests cost at it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..arrivals import Arrivals, Poisson, ref_of
from ..health import disturbances, read_counters
from ..inputs import Model, check_duration
from ..launch import Subject, WorkerHandle
from ..machines.instance import LOCAL, Placement, Price
from ..measure import LAG_LIMIT, Launch, memory_reasons
from ..provenance import provenance_of
from ..setting import Positions, Setting, laid_out, pilot, set_up, start_workers
from .limits import LatencyLimit, parse_limits
from .load import check_servers, placed
from .result import Answer, Cost, ModelSweep, RatePoint, Sweep
from .search import TOLERANCE, Search
from .trial import (
    Trial,
    answer_of,
    lag_ms,
    overload,
    play,
    quantile,
    requests_to_settle,
    unsettled,
    utilisation,
    variation,
)

# Of the rate at which a server would never rest: where the search begins, and beyond which it does not go.
_START, _CEILING = 0.5, 1.5
# A trial holds so many requests that this many are beyond the limit where it is just kept, lasts long enough to meet what disturbs a
# machine, and takes no larger share of a model's time.
_BEYOND, _TRIAL_LEAST_S, _TRIAL_MOST_S, _TRIAL_SHARE = 40, 0.5, 30.0, 0.08
_FEWEST, _MOST = 100, 50_000


def sweep(
    models: Sequence[Model],
    budget: str,
    *,
    arrivals: Arrivals | None = None,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    servers: int = 1,
    seconds: float = 60.0,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Search for the highest rate at which each of `models` keeps the limits in `budget`, for at most about `seconds` of load each.

    Models take turns, trial by trial. `arrivals` is a trace to scale, Poisson when None. Raises InputError before anything is measured,
    RunFailed when a worker dies.
    """
    check_duration(seconds, 1)
    placement = placed(instance, threads, servers)
    limits = parse_limits(budget, instance=placement.instance.name)
    at = set_up(models, requests=requests, placement=placement, seed=seed, store=store)
    check_servers(at.subjects, servers)
    shape = arrivals or Poisson(rate_per_s=1.0)
    lines = [_Line(subject, limits, at, servers, seconds) for subject in at.subjects]
    before = read_counters(placement.cpus)
    told = _search(lines, at, shape, seconds=seconds, progress=progress)
    seen = disturbances(before, read_counters(placement.cpus), [trial.wait for line in lines for trial in line.trials])
    return Sweep(
        provenance=provenance_of(at, servers=servers),
        arrivals=ref_of(shape),
        limits=limits,
        models=tuple(line.result() for line in lines),
        invalid=seen.fatal + seen.shared + memory_reasons(told, at.subjects, placement),
    )


def _search(lines: Sequence[_Line], at: Setting, shape: Arrivals, *, seconds: float, progress: Progress) -> list[Launch]:
    """Give every model's search one trial after another, in turns, until all are done or out of time; what its processes told."""
    told: list[Launch] = []
    what, total = f"sweep on {at.placement.instance.name}", round(seconds * len(lines))
    with laid_out(at.pool, at.placement.cpus) as file:
        while waiting := [number for number, line in enumerate(lines) if line.upcoming() is not None]:
            with ExitStack() as living:
                workers, readies = start_workers(at.subjects, at.placement, at.store, file, living=living, rng=at.rng)
                for number in waiting:
                    lines[number].begin(workers[number], len(at.pool))
                # No process tries a rate twice: what is confirmed is not one process's luck.
                tried: set[tuple[int, float]] = set()
                while turn := [(n, rate) for n in waiting if (rate := lines[n].upcoming()) is not None and (n, rate) not in tried]:
                    for position in at.rng.permutation(len(turn)).tolist():
                        number, rate = turn[position]
                        lines[number].trial(workers[number], rate, shape, int(at.rng.integers(2**31)))
                        tried.add((number, rate))
                        progress(what, round(sum(min(line.spent_s, seconds) for line in lines)), total)
                told += [Launch(model=m, ready=readies[m], ended=worker.stop()) for m, worker in enumerate(workers)]
    return told


class _Line:
    """One model's search: its trials so far. Rates are those of the whole instance, of which one of its parts gets its share."""

    def __init__(self, subject: Subject, limits: Sequence[LatencyLimit], at: Setting, servers: int, seconds: float) -> None:
        self._subject, self._limits, self._seconds = subject, limits, seconds
        self._placement, self._servers = at.placement, servers
        self._positions = Positions(len(at.pool), at.rng)
        self._by_rate: dict[float, list[Trial]] = {}
        self._points: list[RatePoint] = []
        self.search = Search(1.0, 1.0)
        self.spent_s = 0.0
        self._request_s = 0.0

    @property
    def trials(self) -> list[Trial]:
        return [trial for trials in self._by_rate.values() for trial in trials]

    def upcoming(self) -> float | None:
        """The rate to try next; None when done or out of time."""
        return self.search.next_rate() if self.spent_s < self._seconds else None

    def begin(self, worker: WorkerHandle, pool: int) -> None:
        """Warm a new process up; the first one says where the search begins."""
        self._request_s = max(pilot(worker, pool), 1e-6)
        if not self._points:
            capacity = self._servers * self._placement.parts / self._request_s
            self.search = Search(_START * capacity, _CEILING * capacity)

    def trial(self, worker: WorkerHandle, rate_per_s: float, shape: Arrivals, seed: int) -> None:
        """Load the model at a rate and tell the search what became of it."""
        hardest, mine_per_s = max(limit.p for limit in self._limits), rate_per_s / self._placement.parts
        longest_s = min(self._seconds * _TRIAL_SHARE, _TRIAL_MOST_S)
        wanted = max(_BEYOND / (1 - hardest), mine_per_s * _TRIAL_LEAST_S, self._to_settle(mine_per_s, shape))
        count = int(np.clip(min(wanted, mine_per_s * longest_s), _FEWEST, _MOST))
        due_ns = shape.at_rate(mine_per_s).draw(count, np.random.default_rng(seed))
        one = play(worker, self._positions.draw(count), due_ns, self._servers)
        self._by_rate.setdefault(rate_per_s, []).append(one)
        self.spent_s += one.end_ns / 1e9
        late_ms = lag_ms([one], 0.99)
        found: Answer = "unclear"
        if late_ms <= LAG_LIMIT * min(limit.limit_ms for limit in self._limits):
            found = answer_of(one, self._by_rate[rate_per_s], self._limits, servers=self._servers)
        self.search.tell(rate_per_s, found)
        self._points.append(
            RatePoint(
                rate_per_s=rate_per_s,
                seed=seed,
                found_ms=tuple(quantile([one], limit.p, self._servers) for limit in self._limits),
                utilisation=utilisation(one, self._servers),
                requests=count,
                lag_p99_ms=late_ms,
                overload=overload([one], self._servers),
                unsettled=unsettled([one], self._servers),
                answer=found,
            )
        )

    def _to_settle(self, rate_per_s: float, shape: Arrivals) -> float:
        """Requests that a queue at this rate needs, with a tenth to spare; before any was seen, service is taken to be exponential."""
        service_s, service_cv = self._request_s, 1.0
        if self._points:
            service_ns = np.concatenate([trial.service_ns for trial in self.trials])
            service_s, service_cv = float(service_ns.mean()) / 1e9, variation(service_ns)
        return 1.1 * requests_to_settle(rate_per_s * service_s / self._servers, ref_of(shape).gap_cv, service_cv)

    def result(self) -> ModelSweep:
        """What the search has found."""
        met, missed = self.search.meets_per_s, self.search.misses_per_s
        service_s = float(np.mean(np.concatenate([trial.service_ns for trial in self.trials]))) / 1e9
        return ModelSweep(
            model=self._subject.ref,
            meets_per_s=met,
            misses_per_s=missed,
            confirmed=self.search.confirmed,
            capacity_per_s=self._servers * self._placement.parts / service_s,
            points=tuple(self._points),
            cost=cost(self._placement, met, missed),
            why=self._why(met, missed),
        )

    def _why(self, met: float | None, missed: float | None) -> str:
        """What keeps the interval from being narrower; empty when nothing does."""
        short = sum(point.unsettled is not None and point.answer == "unclear" for point in self._points)
        late = sum(point.lag_p99_ms > LAG_LIMIT * min(limit.limit_ms for limit in self._limits) for point in self._points)
        parts = []
        if met is None and missed is None:
            parts.append("no trial was clear")
        elif met is None:
            parts.append(f"no rate down to {min(point.rate_per_s for point in self._points):.1f}/s was seen to keep the limits")
        elif missed is None:
            parts.append("no rate was seen to miss the limits")
        elif missed / met > TOLERANCE:
            parts.append("rates between were unclear")
        if self.spent_s >= self._seconds and (parts or not self.search.confirmed):
            parts.append(f"the time was up after {len(self._points)} trials: raise --seconds")
        if short:
            parts.append(f"{short} of {len(self._points)} trials were too short for the queue to settle: raise --seconds")
        if late:
            parts.append(f"in {late} of {len(self._points)} trials the server itself was late by over {LAG_LIMIT:.0%} of the limit")
        return "; ".join(parts)


def usd_per_million(usd_per_hour: float, rate_per_s: float) -> float:
    """What a million requests cost at a steady rate."""
    return usd_per_hour / 3600 / rate_per_s * 1e6


def cost(placement: Placement, meets_per_s: float | None, misses_per_s: float | None) -> Cost | None:
    """Cost at the ends of the interval; None when the instance has no price or no rate keeps the limits."""
    price = placement.instance.price
    if not isinstance(price, Price) or meets_per_s is None:
        return None
    return Cost(
        low=None if misses_per_s is None else usd_per_million(price.usd_per_hour, misses_per_s),
        high=usd_per_million(price.usd_per_hour, meets_per_s),
        usd_per_hour=price.usd_per_hour,
        price=f"{price.region}, {price.date:%Y-%m-%d}, {price.source}",
        label=placement.label,
    )
