"""Measure models side by side: fresh processes, interleaved rounds, the same requests, raw samples."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ..core.artifact import ModelRef
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.signature import Signature
from ..core.store import Store
from .health import disturbances, drift, read_counters
from .instance import Placement
from .launch import WorkerHandle, aside
from .protocol import Ended, Ready
from .samples import SampleBlock, Samples

LAUNCHES = 5
# A round costs a switch between processes; blocks much shorter than this measure the switch.
_USUAL_BLOCK, _LARGEST_BLOCK, _SMALLEST_BLOCK = 100, 1000, 5
_FEWEST_ROUNDS, _MOST_ROUNDS = 10, 80
_LARGEST_POOL, _POOL_BYTES = 1000, 256 * 2**20
# At least this share of the time is spent measuring, however long the processes take to start.
_MEASURING_SHARE = 0.4
_PILOT_REQUESTS, _PILOT_S = 50, 0.3


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model to measure: how results name it, and the path a worker loads it from (an artifact folder or a torch.export archive)."""

    ref: ModelRef
    path: Path
    signature: Signature


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """What one process of one model told: loading, first answer, and its memory at the end."""

    model: int
    ready: Ready
    ended: Ended


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One instance measured: samples, launches, why it cannot be trusted (if so), and how long it took."""

    placement: Placement
    samples: Samples
    launches: tuple[Launch, ...]
    invalid: tuple[str, ...]
    candidates: tuple[int, ...]
    seconds: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests a block has, how many are repeated untimed before it, and how many rounds a launch has."""

    block: int
    warmup: int
    rounds_per_launch: int


def plan(seconds: float, request_s: Sequence[float], launches: int) -> Plan:
    """Divide `seconds` of measuring over launches, rounds and blocks, for models that need `request_s` per request.

    Rounds are what intervals are made of, so slow models get smaller blocks before they get fewer than 10 rounds; fast ones get larger
    blocks once there are 80. The smallest plan (10 rounds of 5) may take longer than `seconds`.
    """
    each = max(sum(request_s), 1e-7) * 1.05
    rounds = seconds / (_USUAL_BLOCK * each)
    block = _USUAL_BLOCK
    if rounds < _FEWEST_ROUNDS:
        rounds, block = _FEWEST_ROUNDS, max(_SMALLEST_BLOCK, int(seconds / (_FEWEST_ROUNDS * each)))
    elif rounds > _MOST_ROUNDS:
        rounds, block = _MOST_ROUNDS, min(_LARGEST_BLOCK, int(seconds / (_MOST_ROUNDS * each)))
    return Plan(block=block, warmup=block // 20, rounds_per_launch=max(1, math.ceil(rounds / launches)))


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
) -> Run:
    """Service times of `subjects` on `placement`, in about `seconds`.

    Every launch starts a fresh process per model; each of its rounds gives every model a block of the same requests, in an order drawn
    anew. Raises RunFailed when a worker dies, InputError when the requests do not fit a model.
    """
    rng = np.random.default_rng(seed)
    begun = time.monotonic()
    pool = _pool(subjects, requests, rng)
    positions = _Positions(len(pool), rng)
    blocks: list[SampleBlock] = []
    told: list[Launch] = []
    waits: list[tuple[int, int] | None] = []
    what = f"measuring on {placement.instance.name}"
    before = read_counters(placement.cpus)
    with TemporaryDirectory(prefix="liftgate-") as folder, aside(placement.cpus):
        file = Path(folder) / "requests.parquet"
        pool.write(file)
        planned: Plan | None = None
        for launch in range(launches):
            with ExitStack() as living:
                workers, readies = _start(subjects, placement, store, file, living)
                speeds = [_pilot(worker, len(pool)) for worker in workers]
                if planned is None:
                    startup = (time.monotonic() - begun) * launches
                    planned = plan(max(seconds - startup, seconds * _MEASURING_SHARE), speeds, launches)
                for number in range(launch * planned.rounds_per_launch, (launch + 1) * planned.rounds_per_launch):
                    indices = positions.draw(planned.block)
                    for turn, model in enumerate(rng.permutation(len(subjects)).tolist()):
                        done = workers[model].block(tuple(indices.tolist()), planned.warmup)
                        waits.append(None if done.waited_ns is None or done.ran_ns is None else (done.waited_ns, done.ran_ns))
                        ns = np.frombuffer(done.samples, dtype="<i8").astype(np.int64)
                        blocks.append(SampleBlock(model=model, launch=launch, round=number, turn=turn, requests=indices, ns=ns))
                    progress(what, number + 1, launches * planned.rounds_per_launch)
                told.extend(Launch(model=i, ready=readies[i], ended=worker.stop()) for i, worker in enumerate(workers))
    disturbed = disturbances(before, read_counters(placement.cpus), waits)
    names = tuple(s.ref.name for s in subjects)
    samples = Samples(instance=placement.instance.name, models=names, request_ids=tuple(pool.request_ids), blocks=tuple(blocks))
    return Run(
        placement=placement,
        samples=samples,
        launches=tuple(told),
        invalid=disturbed + _memory_reasons(told, subjects, placement) + _drift_reasons(samples),
        candidates=tuple(pool.candidates(subjects[0].signature)),
        seconds=time.monotonic() - begun,
    )


def _start(
    subjects: Sequence[Subject], placement: Placement, store: Store, requests: Path, living: ExitStack
) -> tuple[list[WorkerHandle], list[Ready]]:
    """A fresh worker per model, started one after another so that none loads beside another; `living` ends them."""
    workers, readies = [], []
    for subject in subjects:
        worker = WorkerHandle(subject.ref.name, placement.cpus, placement.threads)
        living.callback(worker.kill)
        readies.append(worker.open(subject.path, store.root, requests, placement.threads))
        workers.append(worker)
    return workers, readies


class _Positions:
    """Draws positions so that every request has its turn before any comes again."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self._size = size
        self._rng = rng
        self._left = np.zeros(0, dtype=np.int64)

    def draw(self, count: int) -> np.ndarray:
        """The next `count` positions, int64 `[count]`."""
        while len(self._left) < count:
            self._left = np.concatenate([self._left, self._rng.permutation(self._size)])
        taken, self._left = self._left[:count], self._left[count:]
        return taken


def _pilot(worker: WorkerHandle, pool: int) -> float:
    """Warm a worker up and learn how many seconds a request takes."""
    spent = 0.0
    speed = 0.0
    size = 1
    while spent < _PILOT_S and size <= _PILOT_REQUESTS:
        done = worker.block(tuple(i % pool for i in range(size)), 0)
        block_s = float(np.frombuffer(done.samples, dtype="<i8").sum()) / 1e9
        spent += block_s
        speed = block_s / size
        size *= 5
    return speed


def _pool(subjects: Sequence[Subject], requests: Requests, rng: np.random.Generator) -> Requests:
    """The requests to replay: all, or a random thousand of them, or as many as fit 256 MiB once they are tensors."""
    size = min(len(requests), _LARGEST_POOL)
    few = requests.take(range(min(8, len(requests))))
    for subject in subjects:
        feeds = list(few.restrict(subject.signature).feeds(subject.signature))
        each = sum(array.nbytes for feed in feeds for array in feed.values()) / len(feeds)
        size = max(1, min(size, int(_POOL_BYTES / max(each, 1))))
    return requests if size == len(requests) else requests.take(np.sort(rng.choice(len(requests), size, replace=False)).tolist())


def _memory_reasons(told: Sequence[Launch], subjects: Sequence[Subject], placement: Placement) -> tuple[str, ...]:
    """Models that would not fit the instance, or that were swapped out while measured."""
    found = []
    for number, subject in enumerate(subjects):
        mine = [launch.ended for launch in told if launch.model == number]
        peak = max((ended.memory_bytes for ended in mine if ended.memory_bytes is not None), default=0)
        if peak > placement.memory_limit_bytes:
            found.append(
                f"{subject.ref.name} needs {peak / 2**30:.1f} GiB, {placement.instance.name} has {placement.instance.memory_gib:g} GiB"
            )
        if any(ended.swapped_bytes for ended in mine):
            found.append(f"{subject.ref.name} was partly swapped out")
    return tuple(found)


def _drift_reasons(samples: Samples) -> tuple[str, ...]:
    reasons = ((name, drift(samples.of(number))) for number, name in enumerate(samples.models))
    return tuple(f"{name}: {reason}" for name, reason in reasons if reason)
