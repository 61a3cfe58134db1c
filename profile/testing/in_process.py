"""Measure Python callables in the process that calls: blocks in random order, garbage collection off while a block runs, warm-up dropped.

A stretch takes the place of a launch: rubbish is collected and everything warmed up anew before each. What differs between processes, as
where their memory happens to lie, stays the same in all of them: models are better measured by name, in processes of their own.
"""

from __future__ import annotations

import gc
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import methodcaller

import msgspec
import numpy as np

from ...core.errors import InputError, LiftgateError
from ..health import Counters, disturbances, read_counters
from ..inputs import load_placements
from ..machines.instance import LOCAL
from ..measure import Plan, Run, drift_reasons
from ..samples import SampleBlock, Samples
from ..worker import scheduled_ns

Call = Callable[[], object]
STRETCHES = 8
_BLOCK_S = 0.025
_LARGEST_BLOCK = 5000
_FEWEST_ROUNDS = 2
_PILOT_CALLS, _PILOT_S = 50, 0.05
# Reading a clock twice takes about a tenth of this.
_SHORTEST_S = 1e-6
# pytest then ends the traceback of a mistake in the test, and shows all of what a callable raises.
HIDDEN = methodcaller("errisinstance", LiftgateError)


def _all_counters() -> Counters:
    return read_counters(sorted(os.sched_getaffinity(0)))


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What measuring reads: a clock in ns, what the kernel counts, and ns that this process ran and waited for a CPU (None: not told)."""

    clock: Callable[[], int] = time.perf_counter_ns
    counters: Callable[[], Counters] = _all_counters
    scheduled: Callable[[], tuple[int, int] | None] = scheduled_ns


def plan(seconds: float, call_s: Sequence[float]) -> Plan:
    """Blocks of about 25 ms, two or more rounds per stretch; slow callables get smaller blocks, down to single calls."""
    each = max(sum(call_s), 1e-9) * 1.05
    most = int(seconds / (STRETCHES * _FEWEST_ROUNDS * each))
    block = max(1, min(_LARGEST_BLOCK, int(_BLOCK_S / max(call_s)), most))
    return Plan(block=block, warmup=block // 20, rounds_per_launch=max(_FEWEST_ROUNDS, int(seconds / STRETCHES / (block * each))))


def measure_calls(
    names: Sequence[str],
    calls: Sequence[Call],
    *,
    seconds: float,
    seed: int,
    watch: Watch,
    enough: Callable[[Run], bool] | None = None,
) -> Run:
    """Service times of `calls` in about `seconds`; after a stretch `enough` may say that the answer is clear.

    Raises InputError for what cannot be timed: a coroutine function, or a call that is shorter than a clock can tell. What a call raises
    goes to whoever measures.
    """
    __tracebackhide__ = HIDDEN
    for name, call in zip(names, calls, strict=True):
        if not callable(call) or inspect.iscoroutinefunction(call):
            what = "a coroutine function" if callable(call) else f"a {type(call).__name__}"
            raise InputError.mismatch(f"latency of {name}", expected="a callable without arguments", found=what, fix="pass lambda: work(x)")
    gathered = _Gathered(names, watch)
    rng = np.random.default_rng(seed)
    speeds = []  # not a comprehension, which would be one more frame in a test's traceback
    for name, call in zip(names, calls, strict=True):
        speeds.append(_pilot(name, call, watch))
    planned = plan(seconds, speeds)
    deadline = watch.clock() + int(seconds * 1.5e9)
    for stretch in range(STRETCHES):
        gc.collect()
        for call in calls:
            call()
        for number in range(stretch * planned.rounds_per_launch, (stretch + 1) * planned.rounds_per_launch):
            for turn, model in enumerate(rng.permutation(len(calls)).tolist()):
                gathered.add(_block(calls[model], planned, watch.clock), model=model, launch=stretch, number=number, turn=turn)
            if watch.clock() > deadline:
                return gathered.run()
        if enough is not None and stretch + 1 < STRETCHES and enough(gathered.run()):
            break
    return gathered.run()


class _Gathered:
    """What has been measured so far."""

    def __init__(self, names: Sequence[str], watch: Watch) -> None:
        self._names, self._watch = tuple(names), watch
        self._placement = load_placements([LOCAL], None)[0]
        self._blocks: list[SampleBlock] = []
        self._counters, self._scheduled = watch.counters(), watch.scheduled()

    def add(self, ns: np.ndarray, *, model: int, launch: int, number: int, turn: int) -> None:
        indices = np.zeros(len(ns), dtype=np.int64)
        self._blocks.append(SampleBlock(model=model, launch=launch, round=number, turn=turn, requests=indices, ns=ns))

    def run(self) -> Run:
        """Everything so far, with what happened to the machine meanwhile."""
        samples = Samples(instance=LOCAL, models=self._names, request_ids=("call",), blocks=tuple(self._blocks))
        before, after = self._scheduled, self._watch.scheduled()
        waits = [None if before is None or after is None else (after[1] - before[1], after[0] - before[0])]
        seen = disturbances(self._counters, self._watch.counters(), waits)
        return Run(
            placement=self._placement,
            samples=samples,
            launches=(),
            planned=STRETCHES,
            invalid=seen.fatal,
            unsteady=seen.shared + drift_reasons(samples),
            candidates=(),
            measured_s=sum(int(b.ns.sum()) for b in self._blocks) / 1e9,
        )


def _pilot(name: str, call: Call, watch: Watch) -> float:
    """Warm up and learn how many seconds a call takes."""
    __tracebackhide__ = HIDDEN
    spent, speed, size = 0.0, 0.0, 1
    while spent < _PILOT_S and size <= _PILOT_CALLS:
        before = watch.clock()
        for _ in range(size):
            call()
        spent += (watch.clock() - before) / 1e9
        speed = (watch.clock() - before) / 1e9 / size
        size *= 5
    if speed < _SHORTEST_S:
        found = f"about {speed * 1e9:.0f} ns"
        raise InputError.mismatch(f"latency of {name}", expected="a call of 1 µs or more", found=found, fix="time many of them in one call")
    return speed


def _block(call: Call, planned: Plan, clock: Callable[[], int]) -> np.ndarray:
    """Nanoseconds of each call, int64 `[calls]`; at least 1, as ratios are taken."""
    ns = np.zeros(planned.block, dtype=np.int64)
    for _ in range(planned.warmup):
        call()
    with _undisturbed():
        for position in range(planned.block):
            start = clock()
            call()
            ns[position] = clock() - start
    return np.maximum(ns, 1)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No garbage collection, and no tracer such as that of coverage: the warm-up was traced."""
    collecting, tracer = gc.isenabled(), sys.gettrace()
    gc.disable()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
        if collecting:
            gc.enable()
