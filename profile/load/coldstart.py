"""`coldstart`: what the first requests of a fresh process wait for, launch by launch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..health import disturbances, read_counters
from ..inputs import Model, check_duration, load_placements
from ..launch import WorkerHandle
from ..machines.instance import LOCAL
from ..measure import Launch, memory_reasons
from ..protocol import Ended, Ready
from ..provenance import provenance_of
from ..setting import laid_out, set_up, start_workers
from .page_cache import cached_share, drop, files_of
from .result import ColdLaunch, ColdStart, ModelColdStart

# Requests after the first: at least these, at most those, and no more than fit the time.
_FEWEST, _MOST, _MOST_S = 40, 400, 3.0
# Steady is where the median of this many consecutive requests comes within this of the median of the last half.
_WINDOW, _STEADY = 5, 1.10


def coldstart(
    models: Sequence[Model],
    *,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    launches: int = 10,
    cold_cache: bool = False,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> ColdStart:
    """Start `models` `launches` times each, one process at a time, in an order drawn anew for every round.

    With `cold_cache` the model's own files are put out of the page cache before every start; the runtime's libraries stay. Raises
    InputError before anything is measured, RunFailed when a worker dies.
    """
    check_duration(1, launches)
    at = set_up(models, requests=requests, placement=load_placements([instance], threads)[0], seed=seed, store=store)
    placement, subjects, rng = at.placement, at.subjects, at.rng
    shuffled = at.pool.take(rng.permutation(len(at.pool)).tolist())
    told: list[list[ColdLaunch]] = [[] for _ in subjects]
    ends: list[Launch] = []
    waits: list[tuple[int, int] | None] = []
    before = read_counters(placement.cpus)
    with laid_out(shuffled, placement.cpus) as file:
        for launch in range(launches):
            for turn, model in enumerate(rng.permutation(len(subjects)).tolist()):
                files = files_of(subjects[model].path)
                if cold_cache:
                    drop(files)
                cached = cached_share(files)
                with ExitStack() as living:
                    (worker,), (ready,) = start_workers([subjects[model]], placement, at.store, file, living=living, rng=rng)
                    ns, spent = _first_requests(worker, ready, len(at.pool))
                    waits += spent
                    ends.append(Launch(model=model, ready=ready, ended=worker.stop()))
                    told[model].append(_launch(ready, ends[-1].ended, ns, cached))
                progress(f"cold starts on {placement.instance.name}", launch * len(subjects) + turn + 1, launches * len(subjects))
    seen = disturbances(before, read_counters(placement.cpus), waits)
    provenance = provenance_of(at)
    if cold_cache:
        provenance = msgspec.structs.replace(provenance, note=f"{provenance.note}; at these starts the model's files were not")
    return ColdStart(
        provenance=provenance,
        page_cache="cold" if cold_cache else "as it was",
        models=tuple(_summary(subject.ref, mine) for subject, mine in zip(subjects, told, strict=True)),
        invalid=seen.fatal + seen.shared + memory_reasons(ends, subjects, placement),
    )


def _first_requests(worker: WorkerHandle, ready: Ready, pool: int) -> tuple[npt.NDArray[np.int64], list[tuple[int, int] | None]]:
    """Service time of a process's first requests in order, int64 nanoseconds, and how long it ran and waited."""
    asked, found, waits = 1, [np.array([ready.first_request_ns], dtype=np.int64)], []
    count = _FEWEST
    while count > 0:
        done = worker.block(tuple((asked + i) % pool for i in range(count)), 0)
        waits.append(done.wait)
        found.append(np.frombuffer(done.samples, dtype="<i8").astype(np.int64))
        asked += count
        each_s = float(np.median(found[-1])) / 1e9
        count = min(_MOST, int(_MOST_S / max(each_s, 1e-9))) - asked if len(found) == 2 else 0
    return np.concatenate(found), waits


def steady_after(ns: npt.NDArray[np.int64]) -> int:
    """How many requests a process answers before the median of five comes within 10 % of the median of its last half."""
    steady = float(np.median(ns[len(ns) // 2 :]))
    for position in range(len(ns) - _WINDOW + 1):
        if float(np.median(ns[position : position + _WINDOW])) <= steady * _STEADY and ns[position] <= steady * _STEADY:
            return position
    return len(ns)


def _launch(ready: Ready, ended: Ended, ns: npt.NDArray[np.int64], cached: float | None) -> ColdLaunch:
    requests = steady_after(ns)
    return ColdLaunch(
        import_ms=ready.import_ns / 1e6,
        load_ms=ready.load_ns / 1e6,
        first_request_ms=ready.first_request_ns / 1e6,
        requests_until_steady=requests,
        until_steady_ms=(ready.load_ns + int(ns[:requests].sum())) / 1e6,
        steady_ms=float(np.median(ns[len(ns) // 2 :])) / 1e6,
        memory_bytes=ended.memory_bytes,
        swapped_bytes=ended.swapped_bytes,
        cached_share=cached,
    )


def _summary(ref: ModelRef, launches: Sequence[ColdLaunch]) -> ModelColdStart:
    memory = [launch.memory_bytes for launch in launches if launch.memory_bytes is not None]
    swapped = [launch.swapped_bytes for launch in launches if launch.swapped_bytes is not None]
    return ModelColdStart(
        model=ref,
        import_ms=median_estimate([launch.import_ms for launch in launches]),
        load_ms=median_estimate([launch.load_ms for launch in launches]),
        first_request_ms=median_estimate([launch.first_request_ms for launch in launches]),
        requests_until_steady=median_estimate([float(launch.requests_until_steady) for launch in launches]),
        until_steady_ms=median_estimate([launch.until_steady_ms for launch in launches]),
        steady_ms=median_estimate([launch.steady_ms for launch in launches]),
        memory_bytes=max(memory, default=None),
        swapped_bytes=max(swapped, default=None),
        launches=tuple(launches),
    )


def median_estimate(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Median of independent processes with the order statistics that enclose it (Conover 1999, section 3.2); below six there are none."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return Estimate(value=None, low=None, high=None, n=0, level=level)
    # Ranks from 1; rank r and n + 1 - r miss the median with 2 P(X < r), X binomial.
    rank = int(stats.binom.ppf((1 - level) / 2, n, 0.5))
    known = rank >= 1 and 2 * float(stats.binom.cdf(rank - 1, n, 0.5)) <= 1 - level
    low, high = (float(ordered[rank - 1]), float(ordered[n - rank])) if known else (None, None)
    return Estimate(value=float(np.median(ordered)), low=low, high=high, n=n, level=level)
