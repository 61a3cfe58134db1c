"""Flame graphs: py-spy's stacks of a model that answers requests, or of a router that is serving."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ...core.errors import InputError
from ...core.files import new_file
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..inputs import Model, check_duration, load_placements, load_requests, load_subjects
from ..launch import WorkerHandle
from ..machines.instance import LOCAL
from ..setting import laid_out
from .sampler import Format, check_traceable, sample

_FORMATS: dict[str, Format] = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
_MOST_REQUESTS = 256
# The sampler's end is looked for between blocks, so a block must not last: this is also how late the end may be seen.
_BLOCK_S = 0.2


class Flame(msgspec.Struct, frozen=True, kw_only=True):
    """A file of stacks, how many stacks are in it, and what its reader must know."""

    path: Path
    samples: int
    notes: tuple[str, ...]


def flame(
    model: Model,
    out: Path,
    *,
    requests: Requests | Path | str | None = None,
    seconds: float = 10.0,
    native: bool = True,
    idle: bool = False,
    threads: int | None = None,
    seed: int = 0,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> Flame:
    """Write a flame graph (`.svg`), a speedscope profile (`.json`) or raw stacks (`.txt`) of `model` answering requests for `seconds`.

    With `native` the runtime's own frames show, not only Python's; with `idle` also threads that wait. Times under a sampler are never used
    to judge. Raises RunFailed when py-spy may not look at the process.
    """
    kind = _format(out)
    check_duration(seconds, 1)
    store = Store.of(store)
    placement = load_placements([LOCAL], threads)[0]
    subject = load_subjects([model], store)[0]
    asked = load_requests(requests, [subject], seed)
    few = asked.take(range(min(len(asked), _MOST_REQUESTS)))
    worker = WorkerHandle(subject.ref.name, placement.cpus, placement.threads)
    try:
        with laid_out(few, placement.cpus) as file, new_file(out) as temporary:
            worker.open(subject.path, store.root, file, placement.threads)
            busy = keep_asking(worker, len(few), seconds, progress)
            found = sample(worker.pid, temporary, kind, seconds=seconds, native=native, idle=idle, meanwhile=busy)
    finally:
        worker.kill()
    return Flame(path=out, samples=found.samples, notes=found.notes)


def flame_served(
    pid: int, out: Path, *, seconds: float = 10.0, native: bool = True, idle: bool = False, progress: Progress = silent
) -> Flame:
    """The same of a process that is running, a `liftgate serve` under real traffic for example; it goes on running.

    Raises InputError for a process that is not there or may not be traced, RunFailed when it ended or nothing happened in it.
    """
    kind = _format(out)
    check_duration(seconds, 1)
    check_traceable(pid)
    begun = time.monotonic()

    def tell() -> None:
        progress("sampling", min(round(seconds), int(time.monotonic() - begun)), round(seconds))
        time.sleep(0.1)

    with new_file(out) as temporary:
        found = sample(pid, temporary, kind, seconds=seconds, native=native, idle=idle, meanwhile=tell)
    return Flame(path=out, samples=found.samples, notes=found.notes)


def _format(out: Path) -> Format:
    kind = _FORMATS.get(out.suffix)
    if kind is None:
        expected = "a file ending in .svg, .speedscope.json, .json or .txt"
        raise InputError.mismatch("--out", expected=expected, found=repr(out.name))
    return kind


def block_size(request_s: float, requests: int) -> int:
    """How many of `requests` are asked at a time when one takes `request_s`: about 0.2 s of them, at least one."""
    return max(1, min(requests, int(_BLOCK_S / max(request_s, 1e-9))))


def keep_asking(worker: WorkerHandle, requests: int, seconds: float, progress: Progress) -> Callable[[], None]:
    """A function that has the worker answer a block of its requests each time it is called."""
    begun = time.monotonic()
    asked, size = 0, 1

    def ask() -> None:
        nonlocal asked, size
        before = time.perf_counter()
        worker.block(tuple((asked + i) % requests for i in range(size)), 0)
        asked, size = asked + size, block_size((time.perf_counter() - before) / size, requests)
        progress("sampling", min(round(seconds), int(time.monotonic() - begun)), round(seconds))

    return ask
