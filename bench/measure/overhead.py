"""What measuring itself costs: per timed call in the worker, and on the measured cores by the parent while a block runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...core.artifact import ModelArtifact
from ...core.requests import Requests
from ...core.store import Store
from ...profile.inputs import load_placements, load_subjects
from ...profile.launch import aside
from ...profile.protocol import Block, Open
from ...profile.setting import pilot, start_workers
from ...profile.worker import Worker, scheduled_ns

CALLS, REPEATS, BLOCKS, BLOCK_S = 500, 200, 40, 0.1


class _Nothing:
    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return _ANSWER


_ANSWER: dict[str, np.ndarray] = {}


def per_call(model: ModelArtifact, requests: Requests, store: Store) -> list[str]:
    """Time of a block of a session that does nothing, less that of calling it in a bare loop, per call."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "requests.parquet"
        requests.write(file)
        worker = Worker(Open(model=str(model.path), store=str(store.root), threads=1, requests=str(file)))
    session = _Nothing()
    worker.session = session  # type: ignore[assignment]  # only `run` is asked
    block = Block(indices=tuple(i % len(requests) for i in range(CALLS)), warmup=0)
    feeds = [worker.feeds[i] for i in block.indices]
    added, reported = [], []
    for _ in range(REPEATS):
        begun = time.perf_counter_ns()
        done = worker.block(block)
        timed = time.perf_counter_ns()
        for feed in feeds:
            session.run(feed)
        bare = time.perf_counter_ns() - timed
        added.append((timed - begun - bare) / CALLS / 1e3)
        reported.append(float(np.median(np.frombuffer(done.samples, dtype="<i8"))) / 1e3)
    return [
        f"- per timed call, whole block with its bookkeeping: {np.median(added):.2f} us added (p95 {np.quantile(added, 0.95):.2f} us)",
        f"- what a call that does nothing is reported to take: {np.median(reported):.2f} us",
    ]


def parent(model: ModelArtifact, requests: Requests, store: Store) -> list[str]:
    """CPU time of all threads of the parent while blocks run, and on which CPUs it may run meanwhile."""
    placement = load_placements(["local"], 1)[0]
    subject = load_subjects([model], store)[0]
    used, wall = [], []
    with TemporaryDirectory() as folder, aside(placement.cpus), ExitStack() as living:
        file = Path(folder) / "requests.parquet"
        requests.write(file)
        workers, _ = start_workers([subject], placement, store, file, living=living, rng=np.random.default_rng(0))
        count = max(1, int(BLOCK_S / pilot(workers[0], len(requests))))
        allowed = os.sched_getaffinity(0)
        indices = tuple(i % len(requests) for i in range(count))
        for _ in range(BLOCKS):
            before, begun = scheduled_ns(), time.perf_counter_ns()
            workers[0].block(indices, 0)
            wall.append(time.perf_counter_ns() - begun)
            after = scheduled_ns()
            used.append(0 if before is None or after is None else after[0] - before[0])
    where = f"measured CPU {', '.join(map(str, placement.cpus))}; the parent may use {', '.join(map(str, sorted(allowed)))}"
    return [
        f"- {where}",
        f"- CPU time of the parent per block of {np.median(wall) / 1e6:.0f} ms: {np.median(used) / 1e3:.0f} us, with sending and reading",
        f"- CPUs that both may use: {len(allowed & set(placement.cpus))}",
    ]


def run(model: ModelArtifact, requests: Requests, store: Store) -> list[str]:
    """Both, as a Markdown list."""
    return [*per_call(model, requests, store), *parent(model, requests, store)]
