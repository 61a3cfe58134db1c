"""`batches`: what it brings to answer several requests in one call."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..health import disturbances, read_counters
from ..inputs import Model, check_duration, load_placements
from ..launch import WorkerHandle
from ..machines.instance import LOCAL
from ..measure import LAUNCHES, Launch, memory_reasons
from ..merge import check_mergeable
from ..provenance import provenance_of
from ..result import QUANTILES
from ..setting import Positions, laid_out, set_up, start_workers
from ..statistics import quantile_estimate
from .result import Batches, BatchSize
from .trial import over_trials

# A block lasts about so long; the requests of a block come from a message, so there is a most.
_BLOCK_S, _FEWEST_CALLS, _MOST_REQUESTS, _FEWEST_ROUNDS = 0.1, 5, 4000, 5
_LARGEST = 1024


def parse_sizes(text: str) -> tuple[int, ...]:
    """`1,4,16` as numbers, each once and in this order; raises InputError."""
    sizes = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= _LARGEST:
            expected = f"numbers from 1 to {_LARGEST} with commas between them, such as 1,4,16"
            raise InputError.mismatch("--batch", expected=expected, found=repr(text))
        sizes.append(int(part))
    return tuple(dict.fromkeys(sizes))


def batches(
    model: Model,
    sizes: Sequence[int],
    *,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Batches:
    """Time per call and requests per second of `model` with `sizes` requests per call, one call after another.

    Sizes take turns in rounds, in an order drawn anew. Raises InputError before anything is measured, also where requests of the model do
    not fit one call.
    """
    check_duration(seconds, launches)
    at = set_up([model], requests=requests, placement=load_placements([instance], threads)[0], seed=seed, store=store)
    placement, subjects, rng = at.placement, at.subjects, at.rng
    if max(sizes) > 1:
        check_mergeable(subjects[0].signature, at.pool, subjects[0].ref.name)
    positions = Positions(len(at.pool), rng)
    blocks: list[list[list[npt.NDArray[np.int64]]]] = [[] for _ in sizes]
    told: list[Launch] = []
    waits: list[tuple[int, int] | None] = []
    before = read_counters(placement.cpus)
    with laid_out(at.pool, placement.cpus) as file:
        for launch in range(launches):
            with ExitStack() as living:
                (worker,), (ready,) = start_workers(subjects, placement, at.store, file, living=living, rng=rng)
                calls = [_calls(worker, positions, size) for size in sizes]
                for mine in blocks:
                    mine.append([])
                rounds = max(_FEWEST_ROUNDS, int(seconds / launches / (_BLOCK_S * len(sizes))))
                for number in range(rounds):
                    for turn in rng.permutation(len(sizes)).tolist():
                        done = worker.block(tuple(positions.draw(calls[turn] * sizes[turn]).tolist()), 1, batch=sizes[turn])
                        waits.append(done.wait)
                        blocks[turn][-1].append(np.frombuffer(done.samples, dtype="<i8").astype(np.int64))
                    progress(f"batches on {placement.instance.name}", launch * rounds + number + 1, launches * rounds)
                told.append(Launch(model=0, ready=ready, ended=worker.stop()))
    seen = disturbances(before, read_counters(placement.cpus), waits)
    return Batches(
        provenance=provenance_of(at),
        model=subjects[0].ref,
        sizes=tuple(_size(size, mine, sizes[0], blocks[0]) for size, mine in zip(sizes, blocks, strict=True)),
        invalid=seen.fatal + seen.shared + memory_reasons(told, subjects, placement),
    )


def _calls(worker: WorkerHandle, positions: Positions, size: int) -> int:
    """How many calls of this size fill a block; warms the process up for it."""
    for _ in range(2):
        done = worker.block(tuple(positions.draw(3 * size).tolist()), 0, batch=size)
    call_s = float(np.median(np.frombuffer(done.samples, dtype="<i8"))) / 1e9
    return int(np.clip(_BLOCK_S / max(call_s, 1e-9), _FEWEST_CALLS, max(_FEWEST_CALLS, _MOST_REQUESTS // size)))


Launched = Sequence[Sequence[npt.NDArray[np.int64]]]


def _size(size: int, launches: Launched, first: int, first_launches: Launched) -> BatchSize:
    ours, theirs = _per_second(size, launches), _per_second(first, first_launches)
    return BatchSize(
        requests_per_call=size,
        call_ms={name: quantile_estimate(launches, p) for name, p in QUANTILES.items()},
        requests_per_s=over_trials(ours),
        gain=over_trials([mine / other for mine, other in zip(ours, theirs, strict=True)]),
        calls=sum(len(block) for launch in launches for block in launch),
    )


def _per_second(size: int, launches: Launched) -> list[float]:
    """Requests per second of every process."""
    return [size * sum(len(b) for b in launch) / (sum(int(b.sum()) for b in launch) / 1e9) for launch in launches]
