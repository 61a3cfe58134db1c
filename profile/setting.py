"""What every measurement begins with: models, machine and requests, resolved, checked and laid out for the workers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ..core.requests import Requests
from ..core.store import Store
from .inputs import Model, load_requests, load_subjects
from .launch import Subject, WorkerHandle, aside
from .machines.confine import confined
from .machines.instance import Placement
from .protocol import Ready

_LARGEST_POOL, _POOL_BYTES = 1000, 256 * 2**20
_PILOT_REQUESTS, _PILOT_S = 50, 0.3


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """Models on a placement with the requests they are asked: `asked` is what the user gave, `pool` what is replayed of it.

    `begun` is when that was by time.monotonic().
    """

    store: Store
    placement: Placement
    subjects: tuple[Subject, ...]
    asked: Requests
    pool: Requests
    rng: np.random.Generator
    seed: int
    started_at: datetime
    begun: float


def set_up(
    models: Sequence[Model],
    *,
    requests: Requests | Path | str | None,
    placement: Placement,
    seed: int,
    store: Store | Path | str | None,
) -> Setting:
    """Resolve and check what a person asks to have measured; raises InputError."""
    begun, started_at = time.monotonic(), datetime.now(UTC)
    store = Store.of(store)
    subjects = load_subjects(models, store)
    asked = load_requests(requests, subjects, seed)
    rng = np.random.default_rng(seed)
    return Setting(
        store=store,
        placement=placement,
        subjects=tuple(subjects),
        asked=asked,
        pool=pool_of(subjects, asked, rng),
        rng=rng,
        seed=seed,
        started_at=started_at,
        begun=begun,
    )


@contextmanager
def laid_out(pool: Requests, cpus: Sequence[int]) -> Iterator[Path]:
    """A file with the requests, in a folder of its own, while this process stays off the measured CPUs."""
    with TemporaryDirectory(prefix="liftgate-") as folder, aside(cpus):
        file = Path(folder) / "requests.parquet"
        pool.write(file)
        yield file


def start_workers(
    subjects: Sequence[Subject], placement: Placement, store: Store, requests: Path, *, living: ExitStack, rng: np.random.Generator
) -> tuple[list[WorkerHandle], list[Ready]]:
    """A fresh worker per model; `living` ends them.

    They start one after another so that none loads beside another, in random order because the first finds another memory than the last.
    """
    started: dict[int, tuple[WorkerHandle, Ready]] = {}
    confinement = living.enter_context(confined(placement))
    for model in rng.permutation(len(subjects)).tolist():
        subject = subjects[model]
        worker = WorkerHandle(subject.ref.name, placement.cpus, placement.threads, module=subject.worker, confinement=confinement)
        living.callback(worker.kill)
        started[model] = (worker, worker.open(subject.path, store.root, requests, placement.threads))
    return [started[model][0] for model in range(len(subjects))], [started[model][1] for model in range(len(subjects))]


class Positions:
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


def pilot(worker: WorkerHandle, pool: int) -> float:
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


def pool_of(subjects: Sequence[Subject], requests: Requests, rng: np.random.Generator) -> Requests:
    """The requests to replay: all, or a random thousand of them, or as many as fit 256 MiB once they are tensors."""
    size = min(len(requests), _LARGEST_POOL)
    few = requests.take(range(min(8, len(requests))))
    for subject in subjects:
        feeds = list(few.restrict(subject.signature).feeds(subject.signature))
        each = sum(array.nbytes for feed in feeds for array in feed.values()) / len(feeds)
        size = max(1, min(size, int(_POOL_BYTES / max(each, 1))))
    return requests if size == len(requests) else requests.take(np.sort(rng.choice(len(requests), size, replace=False)).tolist())
