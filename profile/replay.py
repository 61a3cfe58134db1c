"""Open-loop load inside the measuring process: every request has a time at which it is due, whatever became of those before it.

Latency counts from that time, so a stall delays every request that falls due meanwhile and is seen in all of them; a closed loop would stop
asking instead and see it once (coordinated omission). Requests wait in one queue, first come first served, for `servers` threads.

The waiting is done by the serving thread itself: it sleeps until shortly before the next request is due and watches the clock for the
rest. A generator in another process, on another CPU, was tried: it needs a CPU that small machines do not have, its own lateness comes on
top of the server's (both wake by a timer or a pipe, and waking a halted virtual CPU is what takes long), and a neighbour on its CPU then
moves arrivals without a trace in the measured process. Here lateness has one place: `lag_ns`, from when a request was due and a server free
to when the server began. It is part of the latency, and reported.
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from threading import Lock

import msgspec
import numpy as np
import numpy.typing as npt

Feeds = Mapping[str, np.ndarray]
# How long before a request is due a lone server stops sleeping and watches the clock: what waking a sleeping thread usually takes.
WATCH_NS = 100_000
# So that every thread stands ready when the first request is due.
_LEAD_NS = 2_000_000
_PR_SET_TIMERSLACK = 29


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the requests, int64 nanoseconds `[answered]` each, in order of arrival; the first `answered` ones were answered.

    `latency_ns` is done - due, `service_ns` done - begun, and `lag_ns` begun - max(due, server free): the rest of the latency is queueing.
    """

    latency_ns: npt.NDArray[np.int64]
    service_ns: npt.NDArray[np.int64]
    lag_ns: npt.NDArray[np.int64]


def replay(
    run: Callable[[Feeds], object],
    feeds: Sequence[Feeds],
    arrivals_ns: Sequence[int],
    *,
    servers: int = 1,
    threads: Executor | None = None,
    give_up_ns: int | None = None,
    watch_ns: int = WATCH_NS,
    clock: Callable[[], int] = time.perf_counter_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Replay:
    """Answer each of `feeds` when it is due: `arrivals_ns` (ascending) after the start, or as soon after that as a server is free.

    `threads` has a thread for each of several servers; a single one is the calling thread, and watches the clock for the last `watch_ns`
    before a request is due. Requests that no server has begun `give_up_ns` after the start stay unanswered: an overloaded queue has no end.
    """
    size = len(feeds)
    begun_ns, done_ns, free_ns = [0] * size, [0] * size, [0] * size  # lists take a number in a third of the time that arrays do
    early_ns = watch_ns if threads is None else 0  # a thread that watches the clock would hold the interpreter that others need
    positions = iter(range(size))
    taking = Lock()
    start = clock() + _LEAD_NS
    last = math.inf if give_up_ns is None else start + give_up_ns

    def serve() -> int:
        """One server: takes the next request of the queue, waits until it is due, answers; returns how far it came."""
        free, reached = start, 0
        while True:
            with taking:
                # The time is read in turn as well: whoever gives up has nobody behind it who still answers.
                position, now = next(positions, None), clock()
            if position is None:
                return reached
            feed, due = feeds[position], start + arrivals_ns[position]
            if due > last or now > last:
                return reached
            if now < due:
                if due - now > early_ns:
                    sleep((due - now - early_ns) / 1e9)
                while clock() < due:
                    continue
            begun = clock()
            run(feed)
            done = clock()
            begun_ns[position], done_ns[position], free_ns[position] = begun, done, free
            free, reached = done, position + 1

    answered = serve() if threads is None else max(server.result() for server in [threads.submit(serve) for _ in range(servers)])
    begun, done, free = (np.array(ns[:answered], dtype=np.int64) for ns in (begun_ns, done_ns, free_ns))
    due = start + np.array(arrivals_ns[:answered], dtype=np.int64)
    return Replay(latency_ns=done - due, service_ns=done - begun, lag_ns=begun - np.maximum(due, free))


def wake_promptly() -> None:
    """Ask the kernel to end sleeps of this thread, and of those it starts, on time, not up to 50 µs late (prctl(2), PR_SET_TIMERSLACK)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
