"""`cross_check`: liftgate and MLPerf LoadGen take turns at the same session with the same requests, arriving at the same times.

In every launch LoadGen asks once unheeded: its order and its schedule follow from a seed, and that run tells them. Each round then has a
block by LoadGen and one by us; which goes first is drawn. Both run in the same process, so that no luck of one process separates them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..arrivals import check_rate
from ..health import disturbances, read_counters
from ..inputs import Model, check_duration, load_placements
from ..launch import Subject, WorkerHandle
from ..load.limits import LatencyLimit, parse_limits
from ..machines.confine import Confinement, confined
from ..machines.instance import LOCAL
from ..measure import Launch, memory_reasons
from ..protocol import Loadgen, LoadgenDone
from ..provenance import provenance_of
from ..samples import Nanoseconds
from ..setting import Positions, laid_out, pilot, set_up
from .agreement import rule
from .loadgen import DETAIL_FILE, read_judgement, require_loadgen
from .result import CrossCheck, LoadgenVerdict
from .scenario import Gathered, LoadgenBlock, OurBlock, Round, scenario_check, verdict_of

WORKER = "liftgate.profile.mlperf.worker"
LAUNCHES = 5
# At least so many rounds in all, and two per launch.
_ROUNDS = 16
# Of the time: for the run that LoadGen judges, whose criterion needs hundreds of queries in one piece.
_JUDGED = 0.25
_FEWEST, _MOST = 10, 5_000
_MOST_JUDGED = 100_000
# Where no rate is given: often enough that requests queue, seldom enough that queues end.
_UTILISATION = 0.5
# LoadGen's own defaults, where no budget says better.
DEFAULT_LIMIT = LatencyLimit(quantile="p99", p=0.99, limit_ms=100.0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests a block and the judged run have in a scenario; `rate_per_s` is None for SingleStream."""

    rate_per_s: float | None
    block: int
    judged: int


class LoadgenHandle(WorkerHandle):
    """A worker that lets LoadGen ask its session."""

    def loadgen(self, indices: Sequence[int], plan: Plan, limit: LatencyLimit, seed: int, folder: Path) -> LoadgenDone:
        """One run of LoadGen; the caller sleeps in a read meanwhile. Raises RunFailed when LoadGen aborts."""
        command = Loadgen(
            indices=tuple(indices),
            rate_per_s=plan.rate_per_s,
            target_ns=round(limit.limit_ms * 1e6),
            percentile=limit.p,
            seed=seed,
            warmup=_warmup(len(indices)),
            folder=str(folder),
        )
        return self._ask(command, LoadgenDone)


def cross_check(
    model: Model,
    *,
    requests: Requests | Path | str | None = None,
    rate_per_s: float | None = None,
    budget: str | None = None,
    instance: str = LOCAL,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
    worker: str = WORKER,
) -> CrossCheck:
    """Measure `model` with both tools for about `seconds`, one request after another and arriving at `rate_per_s`.

    Without a rate the model is kept busy half of the time. `budget` holds a latency limit, as text or the path of a budget file, that
    LoadGen judges by. Raises InputError before anything is measured, RunFailed when the worker dies, as it does when LoadGen aborts.
    """
    version = require_loadgen()
    check_duration(seconds, launches)
    if rate_per_s is not None:
        check_rate(rate_per_s, "--rate")
    placement = load_placements([instance], threads)[0]
    limit = _limit(budget, placement.instance.name)
    at = set_up([model], requests=requests, placement=placement, seed=seed, store=store)
    before = read_counters(placement.cpus)
    with laid_out(at.pool, placement.cpus) as file, confined(placement) as confinement:
        start = _Start(
            subject=at.subjects[0],
            confinement=confinement,
            store=at.store,
            folder=file.parent,
            limit=limit,
            pool=len(at.pool),
            worker=worker,
        )
        found = _Session(start, at.rng)
        found.measure(seconds, launches, rate_per_s, progress)
    seen = disturbances(before, read_counters(placement.cpus), [w for gathered in found.gathered for w in gathered.waits])
    return CrossCheck(
        model=at.subjects[0].ref,
        provenance=provenance_of(at),
        loadgen_version=version,
        rule=rule(),
        scenarios=tuple(scenario_check(gathered, at.rng) for gathered in found.gathered),
        invalid=seen.fatal + memory_reasons(found.told, at.subjects, placement),
        unsteady=seen.shared,
    )


def plans(seconds: float, launches: int, request_s: float, rate_per_s: float | None) -> tuple[Plan, Plan]:
    """SingleStream, then Server, half of the time each. Raises InputError for a rate that has no steady state."""
    rate = rate_per_s if rate_per_s is not None else _UTILISATION / request_s
    if rate * request_s >= 1:
        found = f"{rate:g} (a request takes {request_s * 1e3:.3g} ms)"
        raise InputError.mismatch("--rate", expected=f"less than the {1 / request_s:.0f} per second one server answers", found=found)
    block_s, judged_s = seconds / 2 * (1 - _JUDGED) / launches / (1 + 2 * rounds_per_launch(launches)), seconds / 2 * _JUDGED

    def planned(rate_per_s: float | None, per_s: float) -> Plan:
        block = min(_MOST, max(_FEWEST, int(block_s * per_s)))
        return Plan(rate_per_s=rate_per_s, block=block, judged=min(_MOST_JUDGED, max(_FEWEST, int(judged_s * per_s))))

    return planned(None, 1 / request_s), planned(rate, rate)


def rounds_per_launch(launches: int) -> int:
    """Two, or more where there are few launches."""
    return max(2, math.ceil(_ROUNDS / launches))


def _limit(budget: str | None, instance: str) -> LatencyLimit:
    """The limit on the highest quantile, as LoadGen takes only one."""
    return DEFAULT_LIMIT if budget is None else max(parse_limits(budget, instance=instance), key=lambda limit: limit.p)


def _warmup(block: int) -> int:
    return 1 + block // 20


class _Start(msgspec.Struct, frozen=True, kw_only=True):
    """What every worker is started with; `pool` is how many requests it has."""

    subject: Subject
    confinement: Confinement
    store: Store
    folder: Path
    limit: LatencyLimit
    pool: int
    worker: str


class _Session:
    """The worker processes of one cross-check, one after another, and what they found."""

    def __init__(self, start: _Start, rng: np.random.Generator) -> None:
        self._start, self._rng = start, rng
        self._positions = Positions(start.pool, rng)
        self.gathered: tuple[Gathered, ...] = ()
        self.told: list[Launch] = []

    def measure(self, seconds: float, launches: int, rate_per_s: float | None, progress: Progress) -> None:
        """All launches; the last one ends with the runs that LoadGen judges."""
        start, place = self._start, self._start.confinement.placement
        planned: tuple[Plan, ...] = ()
        for launch in range(launches):
            with ExitStack() as living:
                worker = LoadgenHandle(
                    start.subject.ref.name, place.cpus, place.threads, module=start.worker, confinement=start.confinement
                )
                living.callback(worker.kill)
                ready = worker.open(start.subject.path, start.store.root, start.folder / "requests.parquet", place.threads)
                request_s = pilot(worker, start.pool)
                if not planned:
                    planned = plans(seconds, launches, request_s, rate_per_s)
                    self.gathered = tuple(Gathered(plan.rate_per_s) for plan in planned)
                for gathered, plan in zip(self.gathered, planned, strict=True):
                    gathered.launches.append(self._rounds(worker, plan, rounds_per_launch(launches)))
                    if launch + 1 == launches:
                        gathered.verdict = self._judge(worker, plan)
                self.told.append(Launch(model=0, ready=ready, ended=worker.stop()))
            progress(f"cross-checking on {place.instance.name}", launch + 1, launches)

    def _rounds(self, worker: LoadgenHandle, plan: Plan, count: int) -> list[Round]:
        """One process's rounds in one scenario."""
        indices = self._positions.draw(plan.block)
        seed, start = int(self._rng.integers(2**31)), self._start

        def theirs() -> LoadgenBlock:
            return LoadgenBlock.of(worker.loadgen(indices.tolist(), plan, start.limit, seed, start.folder))

        told = theirs()
        requests, due_ns = indices[told.order], told.due_ns
        rounds = []
        for ours_first in self._rng.integers(0, 2, count).tolist():
            mine = _ours(worker, requests, due_ns, plan) if ours_first else None
            block = theirs()
            rounds.append((block, mine or _ours(worker, requests, due_ns, plan)))
        return rounds

    def _judge(self, worker: LoadgenHandle, plan: Plan) -> LoadgenVerdict:
        """A longer run, for LoadGen's own verdict."""
        start = self._start
        worker.loadgen(self._positions.draw(plan.judged).tolist(), plan, start.limit, int(self._rng.integers(2**31)), start.folder)
        return verdict_of(read_judgement(start.folder / DETAIL_FILE), start.limit)


def _ours(worker: WorkerHandle, requests: npt.NDArray[np.int64], due_ns: Nanoseconds, plan: Plan) -> OurBlock:
    indices, warmup = tuple(requests.tolist()), _warmup(len(requests))
    if plan.rate_per_s is None:
        return OurBlock.of_block(worker.block(indices, warmup))
    # LoadGen sleeps until a request is due, and waking takes what it takes: to compare the rest, we wait as it does.
    return OurBlock.of_schedule(worker.schedule(indices, tuple(due_ns.tolist()), warmup=warmup, watch=False))
