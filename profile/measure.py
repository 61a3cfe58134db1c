"""Measure models side by side: fresh processes, interleaved rounds, the same requests, raw samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

import msgspec
import numpy as np
import numpy.typing as npt

from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.store import Store
from .arrivals import Poisson
from .budget import Conditions
from .health import disturbances, drift, read_counters
from .launch import Subject, WorkerHandle
from .machines.instance import Placement
from .protocol import Ended, Ready
from .samples import SampleBlock, Samples
from .setting import Positions, laid_out, pilot, pool_of, start_workers

LAUNCHES = 8
# Rounds are short, so that a neighbour's burst mostly lasts longer than one and hits both models; a round costs a switch between processes,
# so they are not shorter.
_BLOCK_S = 0.025
_LARGEST_BLOCK, _SMALLEST_BLOCK = 500, 4
_FEWEST_ROUNDS = 2
_OPEN_BLOCK_S = 0.5
_PATIENCE_NS = 500_000_000
# Of p95, or of a limit: how late the 99th percentile of requests may be begun by a free server.
LAG_LIMIT = 0.05


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of one model told: loading, first answer, and its memory at the end."""

    model: int
    ready: Ready
    ended: Ended


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One instance measured: samples, launches, and why they cannot be trusted (if so).

    `invalid` spoils everything; `unsteady` spoils absolute times, while ratios of interleaved rounds shared what happened. `planned` is how
    many launches there would have been without an early answer, `measured_s` how long requests were timed. With a `rate_per_s` requests
    arrived at random, latency counts from their arrival, and `lag_p99_ms` is how late a free server began them; without, they came one
    after another and it is service time.
    """

    placement: Placement
    rate_per_s: float | None = None
    samples: Samples
    launches: tuple[Launch, ...]
    planned: int
    invalid: tuple[str, ...]
    unsteady: tuple[str, ...] = ()
    candidates: tuple[int, ...]
    lag_p99_ms: float | None = None
    measured_s: float


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one block told: `ns` per request, how long the block was, how late requests were begun, and the waiting for a CPU."""

    ns: npt.NDArray[np.int64]
    block_ns: int
    lag_ns: npt.NDArray[np.int64] | None = None
    wait: tuple[int, int] | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests a block has, how many are repeated untimed before it, and how many rounds a launch has on average."""

    block: int
    warmup: int
    rounds_per_launch: int


def plan(seconds: float, request_s: Sequence[float], launches: int) -> Plan:
    """Divide `seconds` of measuring over launches, rounds and blocks, for models that need `request_s` per request.

    A block lasts about 25 ms. Slow models get smaller blocks before they get fewer than 2 rounds per launch; the smallest plan (2 rounds of
    4 requests) may take longer than `seconds`.
    """
    each = max(sum(request_s), 1e-7) * 1.05
    block = min(_LARGEST_BLOCK, max(_SMALLEST_BLOCK, int(_BLOCK_S / max(*request_s, 1e-7))))
    rounds = int(seconds / launches / (block * each))
    return Plan(block=block, warmup=1 + block // 20, rounds_per_launch=max(_FEWEST_ROUNDS, rounds))


def plan_open(seconds: float, rate_per_s: float, models: int, launches: int) -> Plan:
    """The same for requests that arrive at `rate_per_s`: a block lasts about half a second, so that a queue has time to form."""
    block = max(_SMALLEST_BLOCK, round(_OPEN_BLOCK_S * rate_per_s))
    rounds = int(seconds / launches / (models * block / rate_per_s))
    return Plan(block=block, warmup=1 + block // 20, rounds_per_launch=max(_FEWEST_ROUNDS, rounds))


def rounds_of_launches(planned: Plan, launches: int) -> tuple[int, ...]:
    """Rounds of every launch: the first ones are short, so that a clear answer is not waited for, and no launch is over 4 times another."""
    weights = np.array([min(4, 2 ** (launch // 2)) for launch in range(launches)])
    rounds = planned.rounds_per_launch * launches * weights / weights.sum()
    return tuple(np.maximum(rounds.astype(int), _FEWEST_ROUNDS).tolist())


def measure(
    subjects: Sequence[Subject],
    requests: Requests,
    placement: Placement,
    *,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store,
    progress: Progress = silent,
    rate_per_s: float | None = None,
    enough: Callable[[Run], bool] | None = None,
) -> Run:
    """Times of `subjects` on `placement`, over at most about `seconds` of measuring; starting processes comes on top.

    Every launch starts a fresh process per model; each of its rounds gives every model a block of the same requests, in an order drawn
    anew; with `rate_per_s` also the same arrivals (of an extrapolated instance, its part's share of them). After a launch `enough` may say
    that the answer is clear. Raises RunFailed when a worker dies, InputError when the requests do not fit a model.
    """
    rng = np.random.default_rng(seed)
    pool = pool_of(subjects, requests, rng)
    at = Conditions(instance=placement.instance.name, rate_per_s=rate_per_s)
    # Of requests that go to one of several servers at random, each gets its share, and they still come at random.
    rate = None if rate_per_s is None else rate_per_s / placement.parts
    gathered = _Gathered(subjects, placement, at, pool, planned=launches)
    what = f"measuring on {at.name}"
    with laid_out(pool, placement.cpus) as file:
        positions = Positions(len(pool), rng)
        number = 0
        for launch in range(launches):
            with ExitStack() as living:
                workers, readies = start_workers(subjects, placement, store, file, living=living, rng=rng)
                # Planned anew for every launch: the machine may have been slower a moment ago.
                speeds = [pilot(worker, len(pool)) for worker in workers]
                open_loop = None if rate is None else plan_open(seconds, rate, len(subjects), launches)
                planned = open_loop or plan(seconds, speeds, launches)
                rounds = rounds_of_launches(planned, launches)
                for _ in range(rounds[launch]):
                    indices = positions.draw(planned.block)
                    due_ns = None if rate is None else Poisson(rate_per_s=rate).draw(len(indices), rng)
                    for turn, model in enumerate(rng.permutation(len(subjects)).tolist()):
                        told = _ask(workers[model], indices, due_ns, planned.warmup)
                        block = SampleBlock(model=model, launch=launch, round=number, turn=turn, requests=indices, ns=told.ns)
                        gathered.turn(block, told)
                    number += 1
                    progress(what, number, number + sum(rounds[launch + 1 :]))
                for model, worker in enumerate(workers):
                    gathered.launches.append(Launch(model=model, ready=readies[model], ended=worker.stop()))
            if enough is not None and launch + 1 < launches and enough(gathered.run()):
                break
    return gathered.run()


class _Gathered:
    """What has been measured so far."""

    def __init__(self, subjects: Sequence[Subject], placement: Placement, at: Conditions, pool: Requests, *, planned: int) -> None:
        self._subjects, self._placement, self._at, self._pool, self._planned = subjects, placement, at, pool, planned
        self._blocks: list[SampleBlock] = []
        self._turns: list[Turn] = []
        self._before = read_counters(placement.cpus)
        self.launches: list[Launch] = []

    def turn(self, block: SampleBlock, told: Turn) -> None:
        self._blocks.append(block)
        self._turns.append(told)

    def run(self) -> Run:
        """Everything so far as a Run, with what happened to the machine meanwhile."""
        names = tuple(s.ref.name for s in self._subjects)
        ids = tuple(self._pool.request_ids)
        samples = Samples(instance=self._at.name, models=names, request_ids=ids, blocks=tuple(self._blocks))
        seen = disturbances(self._before, read_counters(self._placement.cpus), [turn.wait for turn in self._turns])
        return Run(
            placement=self._placement,
            rate_per_s=self._at.rate_per_s,
            samples=samples,
            launches=tuple(self.launches),
            planned=self._planned,
            invalid=seen.fatal + memory_reasons(self.launches, self._subjects, self._placement),
            unsteady=seen.shared + drift_reasons(samples),
            candidates=tuple(self._pool.candidates(self._subjects[0].signature)),
            lag_p99_ms=self._lag_p99_ms(),
            measured_s=sum(turn.block_ns for turn in self._turns) / 1e9,
        )

    def _lag_p99_ms(self) -> float | None:
        lags = [turn.lag_ns for turn in self._turns if turn.lag_ns is not None]
        return float(np.quantile(np.concatenate(lags), 0.99)) / 1e6 if lags else None


def lag_reasons(lag_p99_ms: float, against: Mapping[str, float]) -> tuple[str, ...]:
    """Why latency is not the model's: a free server began requests late, by much of what latency is held against (ms by name)."""
    name, limit_ms = min(against.items(), key=lambda item: item[1])
    if lag_p99_ms <= LAG_LIMIT * limit_ms:
        return ()
    return (f"the server itself was late by {lag_p99_ms:.3f} ms at p99 (at most {LAG_LIMIT:.0%} of {name}, {LAG_LIMIT * limit_ms:.3f} ms)",)


def _ask(worker: WorkerHandle, indices: npt.NDArray[np.int64], due_ns: npt.NDArray[np.int64] | None, warmup: int) -> Turn:
    """One block of `indices`: one after another, or when they are due.

    Requests that an overloaded model has not begun when twice the block's length is over count as answered just then.
    """
    positions = tuple(indices.tolist())
    if due_ns is None:
        closed = worker.block(positions, warmup)
        ns = np.frombuffer(closed.samples, dtype="<i8").astype(np.int64)
        return Turn(ns=ns, block_ns=int(ns.sum()), wait=closed.wait)
    give_up_ns = 2 * int(due_ns[-1]) + _PATIENCE_NS
    done = worker.schedule(positions, tuple(due_ns.tolist()), warmup=warmup, give_up_ns=give_up_ns)
    answered, lag_ns = (np.frombuffer(part, dtype="<i8").astype(np.int64) for part in (done.latency, done.lag))
    ns = np.concatenate([answered, give_up_ns - due_ns[len(answered) :]])
    return Turn(ns=ns, block_ns=int((due_ns + ns).max()), lag_ns=lag_ns, wait=done.wait)


def memory_reasons(told: Sequence[Launch], subjects: Sequence[Subject], placement: Placement) -> tuple[str, ...]:
    """Models that would not fit the instance, or that were swapped out while measured."""
    found = []
    for number, subject in enumerate(subjects):
        mine = [launch.ended for launch in told if launch.model == number]
        peak = max((ended.memory_bytes for ended in mine if ended.memory_bytes is not None), default=0)
        if peak > placement.memory_limit_bytes:
            parts = "" if placement.parts == 1 else f" for each of {placement.parts} parts"
            has = f"{placement.instance.name} has {placement.memory_limit_bytes / 2**30:g} GiB{parts}"
            found.append(f"{subject.ref.name} needs {peak / 2**30:.1f} GiB, {has}")
        if any(ended.swapped_bytes for ended in mine):
            found.append(f"{subject.ref.name} was partly swapped out")
    return tuple(found)


def drift_reasons(samples: Samples) -> tuple[str, ...]:
    """Models that ended slower or faster than they began."""
    reasons = ((name, drift(samples.of(number))) for number, name in enumerate(samples.models))
    return tuple(f"{name}: {reason}" for name, reason in reasons if reason)
