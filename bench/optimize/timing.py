"""Times of every variant, interleaved: a process each on the same core, one running at a time, in a new random order every round."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.errors import RunFailed
from ...core.estimate import Estimate
from ...core.progress import Progress, silent
from .building import job_of
from .folder import CANDIDATES, CaseFolder
from .process import Worker
from .protocol import Spec, Time, Timed
from .variants import Built, Variant

Floats = npt.NDArray[np.float64]

_TURN_S = 0.012
_MOST_PER_TURN = 24
_LEAST_ROUNDS = 12
_RESAMPLES = 500


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples of one variant, nanoseconds, a list per round."""

    ns: list[list[int]]

    @property
    def samples(self) -> Floats:
        """Milliseconds `[rounds, samples]`."""
        return np.array(self.ns, dtype=np.float64) / 1e6

    def quantile_ms(self, q: float) -> Estimate:
        """A quantile of all samples, its interval by resampling rounds."""
        samples = self.samples
        picks = np.random.default_rng(0).integers(0, len(samples), size=(_RESAMPLES, len(samples)))
        low, high = np.quantile(np.quantile(samples[picks].reshape(_RESAMPLES, -1), q, axis=1), [0.025, 0.975])
        return Estimate(value=float(np.quantile(samples, q)), low=float(low), high=float(high), n=len(samples))

    def over(self, other: Times) -> Estimate:
        """This variant's median over another's: median over rounds of the ratio within each, its interval by resampling rounds."""
        ratios = np.median(self.samples, axis=1) / np.median(other.samples, axis=1)
        picks = np.random.default_rng(0).integers(0, len(ratios), size=(_RESAMPLES, len(ratios)))
        low, high = np.quantile(np.median(ratios[picks], axis=1), [0.025, 0.975])
        return Estimate(value=float(np.median(ratios)), low=float(low), high=float(high), n=len(ratios))


def measured_core() -> int:
    """The core every variant runs on: the last one this process may use; what drives them sleeps on another meanwhile."""
    return max(os.sched_getaffinity(0))


def time_case(
    place: CaseFolder, variants: Mapping[str, tuple[Variant, Built]], *, seconds: float, seed: int = 0, progress: Progress = silent
) -> tuple[dict[int, dict[str, Times]], dict[str, str]]:
    """Times by number of candidates and variant, `seconds` for each number, and why variants failed that did."""
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, (variant, built) in variants.items():
            progress(f"{place.name}: loading {name}", len(workers), len(variants))
            worker = stack.enter_context(_worker(place, variant, built))
            # One after the other: loading is heavy, and two would disturb one another's compilers.
            try:
                worker.ready()
            except RunFailed as error:
                failures[name] = error.problem
                continue
            workers[name] = worker
        found = {}
        for candidates in CANDIDATES:
            found[candidates] = _rounds(place.name, workers, candidates, seconds=seconds, seed=seed, progress=progress)
    return found, failures


def _worker(place: CaseFolder, variant: Variant, built: Built) -> Worker:
    if built.path is None:
        raise AssertionError("a variant that was not built is not timed")
    job = job_of(place, variant)
    timed = {count: place.timing(count) for count in CANDIDATES}
    spec = Spec(job=job, runner=variant.runner, path=built.path, core=measured_core(), timed=timed)
    return Worker(spec, variant.environment, cache=place.root / "inductor", log=job.folder / "time.log")


def _rounds(
    case: str, workers: Mapping[str, Worker], candidates: int, *, seconds: float, seed: int, progress: Progress
) -> dict[str, Times]:
    """Rounds until the time is up: every worker's turn is as many calls as fit in about 12 ms, after one or two that warm the caches."""
    random = np.random.default_rng([seed, candidates])
    counts = {}
    for name, worker in workers.items():
        usual = float(np.median(worker.ask(Time(candidates=candidates, first=0, count=5, warm=2), Timed).ns)) / 1e9
        counts[name] = int(np.clip(_TURN_S / usual, 1, _MOST_PER_TURN))
    found: dict[str, list[list[int]]] = {name: [] for name in workers}
    start, done = time.monotonic(), 0
    while done < _LEAST_ROUNDS or time.monotonic() - start < seconds:
        for name in random.permutation(list(workers)).tolist():
            count = counts[name]
            asked = Time(candidates=candidates, first=done, count=count, warm=2 if count > 1 else 1)
            found[name].append(workers[name].ask(asked, Timed).ns)
        done += 1
        progress(f"{case}: {candidates} candidates", min(int(time.monotonic() - start), int(seconds)), int(seconds))
    return {name: Times(ns=ns) for name, ns in found.items()}
