"""`profile trace`: spans, node times and stacks of a model that answers requests, in one Chrome trace."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from ...core.errors import RunFailed
from ...core.machine import this_machine, tool_versions
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..inputs import Model, check_duration, load_placements, load_requests, load_subjects
from ..launch import WorkerHandle
from ..machines.instance import LOCAL
from ..run_folder import check_file
from ..setting import Positions, laid_out, pool_of
from .chrome import Slice, Track, chrome_trace, node_slices, span_slices, write_chrome
from .flame import keep_asking
from .nodes import BLOCK_KEY, WorkerTrace, read_worker_trace, runs_of
from .result import Part, Tables, Traced
from .sampler import sample
from .stacks import stack_slices
from .times import Floats, Times, mean_by_block, slowest, times_of, typical
from .worker import TRACE_FILE

WORKER = "liftgate.profile.trace.worker"
_WHERE = "profile trace"
_STACKS_S = 3.0
_BLOCK_S = 0.025
_MOST_REQUESTS = 20_000
# What a viewer still moves about smoothly.
_SHOWN, _SHOWN_WITH_STACKS = 500, 1000
_SPANS_GROUP, _STACKS_GROUP = 1, 2


def trace(
    model: Model,
    out: Path,
    *,
    requests: Requests | Path | str | None = None,
    seconds: float = 5.0,
    stacks: bool = True,
    native: bool = True,
    threads: int | None = None,
    seed: int = 0,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> Traced:
    """Trace `model` for about `seconds`, then up to 3 s more under py-spy, and write a Chrome trace to `out`.

    The tables of the result come from the requests before py-spy, which slows a process down. Where py-spy may not look the trace has no
    stacks and a note says why. Raises InputError for whatever the user gave wrong, RunFailed when the worker dies.
    """
    check_duration(seconds, 1)
    check_file(out)
    store = Store.of(store)
    placement = load_placements([LOCAL], threads)[0]
    subject = load_subjects([model], store)[0]
    rng = np.random.default_rng(seed)
    asked = load_requests(requests, [subject], seed)
    pool = pool_of([subject], asked, rng)
    notes: list[str] = []
    stack_parts: tuple[list[Slice], list[Track]] = ([], [])
    worker = WorkerHandle(subject.ref.name, placement.cpus, placement.threads, module=WORKER)
    try:
        with laid_out(pool, placement.cpus) as file:
            worker.open(subject.path, store.root, file, placement.threads)
            warm = warm_up(worker, len(pool))
            blocks = _ask(worker, Positions(len(pool), rng), warm.request_s, seconds, progress)
            if stacks:
                stacks_file = file.parent / "stacks.json"
                stack_parts, said = _stacks(
                    worker, len(pool), stacks_file, seconds=min(seconds, _STACKS_S), native=native, progress=progress
                )
                notes += said
            worker.stop()
            found = read_worker_trace(file.parent / TRACE_FILE)
    finally:
        worker.kill()
    first, last = warm.blocks, warm.blocks + blocks
    shown = _chosen(found, first, last)
    slices, tracks, lanes = span_slices(shown.spans.traces, _SPANS_GROUP, f"{subject.ref.name}: requests")
    if shown.nodes is not None:
        slices += node_slices(zip(runs_of(shown), lanes, strict=True), shown.nodes.nodes, _SPANS_GROUP)
    about: dict[str, str | int | float] = {"model": subject.ref.name, "machine": this_machine().cpu, "note": "profiled: slower than alone"}
    write_chrome(chrome_trace([*slices, *stack_parts[0]], [*tracks, *stack_parts[1]], about), out)
    times = _between(times_of(found), first, last)
    if len(shown.spans.traces) < len(found.spans.traces):
        notes.append(f"{out} holds {len(shown.spans.traces):,} of {len(found.spans.traces):,} requests, the slowest 1 % among them")
    return Traced(
        model=subject.ref,
        requests=asked.ref,
        machine=this_machine(),
        tools=tool_versions(),
        threads=placement.threads,
        seed=seed,
        trace=str(out),
        tables=tables(times, rng),
        notes=(*notes, *_notes(times)),
    )


class _Warm(msgspec.Struct, frozen=True):
    """How many blocks it took, and seconds per request at the end."""

    blocks: int
    request_s: float


def warm_up(worker: WorkerHandle, pool: int) -> _Warm:
    """Ask a traced worker more and more, up to 0.3 s; it answers no times, so they are taken here."""
    spent, size, blocks, speed = 0.0, 1, 0, 0.0
    while spent < 0.3 and size <= 50:
        before = time.perf_counter()
        worker.block(tuple(i % pool for i in range(size)), 0)
        took = time.perf_counter() - before
        spent, speed, size, blocks = spent + took, took / size, size * 5, blocks + 1
    return _Warm(blocks, speed)


def _ask(worker: WorkerHandle, positions: Positions, request_s: float, seconds: float, progress: Progress) -> int:
    """Blocks asked in about `seconds`."""
    size = max(1, min(500, int(_BLOCK_S / max(request_s, 1e-7))))
    begun, asked, blocks = time.monotonic(), 0, 0
    while blocks < 2 or (time.monotonic() - begun < seconds and asked < _MOST_REQUESTS):
        worker.block(tuple(positions.draw(size).tolist()), 1)
        asked, blocks = asked + size, blocks + 1
        progress("tracing", min(int(time.monotonic() - begun), round(seconds)), round(seconds))
    return blocks


def _stacks(
    worker: WorkerHandle, pool: int, file: Path, *, seconds: float, native: bool, progress: Progress
) -> tuple[tuple[list[Slice], list[Track]], list[str]]:
    """py-spy's stacks of the busy worker; nothing but a note where the system forbids it."""
    try:
        busy = keep_asking(worker, pool, seconds, progress)
        told = sample(worker.pid, file, "chrometrace", seconds=seconds, native=native, where=_WHERE, meanwhile=busy)
    except RunFailed as error:
        if error.where != _WHERE:
            raise
        return ([], []), [f"no stacks: {error.problem}" + (f"; {error.fix}" if error.fix else "")]
    return stack_slices(file, told.begun_ns, _STACKS_GROUP, "stacks by py-spy, 100 per second"), list(told.notes)


def _chosen(found: WorkerTrace, first: int, last: int) -> WorkerTrace:
    """The requests to show: the slowest 1 % and the first ones of those in the tables, and the first ones under py-spy."""
    block = np.array([int(t.attributes[BLOCK_KEY]) for t in found.spans.traces])
    whole = np.array([t.duration_ns for t in found.spans.traces], dtype=float)
    plain = np.flatnonzero((block >= first) & (block < last))
    under = np.flatnonzero(block >= last)
    kept = {*plain[:_SHOWN].tolist(), *plain[slowest(whole[plain])].tolist(), *under[:_SHOWN_WITH_STACKS].tolist()}
    tail = set(plain[slowest(whole[plain])].tolist())
    traces = tuple(
        msgspec.structs.replace(t, kept="slow" if i in tail else "sampled") for i, t in enumerate(found.spans.traces) if i in kept
    )
    return msgspec.structs.replace(found, spans=msgspec.structs.replace(found.spans, traces=traces))


def _between(times: Times, first: int, last: int) -> Times:
    return times.within((times.block >= first) & (times.block < last))


def tables(times: Times, rng: np.random.Generator) -> Tables:
    """Typical and slow requests, whole and divided over nodes and over operators."""
    usual, slow = times.within(typical(times.infer)), times.within(slowest(times.infer))
    whole = float(usual.infer.mean())

    def parts(names: Sequence[tuple[str, str]], own: Floats, own_slow: Floats) -> tuple[Part, ...]:
        """One part per column, those that take longest first."""
        found = [
            Part(name=name, op=op, typical_us=mean, tail_us=float(tail), share=(mean.value or 0.0) / whole)
            for (name, op), mean, tail in zip(names, mean_by_block(own, usual.block, rng), own_slow.mean(axis=0), strict=True)
        ]
        return tuple(sorted(found, key=lambda part: -part.share))

    operators = sorted({node.op for node in times.nodes})
    member = np.array([[node.op == name for name in operators] for node in times.nodes], dtype=float)
    member = member.reshape(len(times.nodes), len(operators))
    return Tables(
        requests=len(times.infer),
        infer_us=mean_by_block(usual.infer[:, None], usual.block, rng)[0],
        tail_requests=len(slow.infer),
        tail_us=float(slow.infer.mean()),
        nodes=parts([(n.name, n.op) for n in times.nodes], usual.own, slow.own),
        operators=parts([(name, name) for name in operators], usual.own @ member, slow.own @ member),
        outside=parts([("outside nodes", "")], usual.outside[:, None], slow.outside[:, None])[0],
        resolution_us=times.resolution_us,
    )


def _notes(times: Times) -> list[str]:
    notes = ["a profiler slows a model down: these times explain, and no gate is judged by them"]
    if not times.nodes:
        return [*notes, "this runtime tells no node times"]
    if times.resolution_us >= 1:
        notes.append("ONNX Runtime cuts times to whole µs: shorter nodes show less than they take, and what is missing is 'outside nodes'")
    if times.lost:
        notes.append(f"the profiler was full: {times.lost} requests at the end have no node times")
    return notes
