"""Spans: where the time of single requests went, in memory that does not grow.

Names and attributes are those an OpenTelemetry exporter would use (`liftgate.infer`), without its packages. Times are nanoseconds of the
monotonic clock; `unix_offset_ns` in a file leads to wall-clock time.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np

from .errors import InputError
from .files import write_atomically

REQUEST = "liftgate.request"
PARSE, FEATURES, ROUTE, QUEUE = "liftgate.parse", "liftgate.features", "liftgate.route", "liftgate.queue"
INFER, POSTPROCESS, RECORD, FALLBACK = "liftgate.infer", "liftgate.postprocess", "liftgate.record", "liftgate.fallback"

_SLOW_WINDOW_NS = 60 * 10**9
_FIX = "write it again with `liftgate serve … --trace DIR`"


class Span(msgspec.Struct, frozen=True, array_like=True):
    """One piece of work."""

    name: str
    start_ns: int
    end_ns: int


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request: `spans[0]` is the whole, the others lie inside it one after another. `kept` says why it was."""

    kept: Literal["sampled", "slow", "both"]
    attributes: dict[str, str]
    spans: Annotated[tuple[Span, ...], msgspec.Meta(min_length=1)]

    @property
    def duration_ns(self) -> int:
        return self.spans[0].end_ns - self.spans[0].start_ns


class SpanFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a process recorded: some of the `seen` requests, in order of their start."""

    schema_version: Literal[1] = 1
    kind: Literal["spans"] = "spans"
    process: str
    pid: int
    seen: int
    sample: float
    unix_offset_ns: int
    traces: tuple[Trace, ...]


class Marks:
    """The request being recorded: `mark(NAME)` ends a span that began where the last one ended."""

    __slots__ = ("_clock", "_recorder", "_start", "attributes", "spans")

    def __init__(self, recorder: SpanRecorder, clock: Callable[[], int]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._start = clock()
        self.spans: list[Span] = []
        self.attributes: dict[str, str] = {}

    def mark(self, name: str) -> None:
        """What happened since the last mark was `name`."""
        self.add(name, self._clock())

    def add(self, name: str, end_ns: int) -> None:
        """The same for something that ended at `end_ns`."""
        before = self.spans[-1].end_ns if self.spans else self._start
        self.spans.append(Span(name, before, max(before, end_ns)))

    def end(self, **attributes: str) -> None:
        """The request is over."""
        last = self.spans[-1].end_ns if self.spans else self._start
        whole = Span(REQUEST, self._start, max(last, self._clock()))
        self._recorder.keep((whole, *self.spans), {**self.attributes, **attributes})


class NoMarks(Marks):
    """What is marked when nobody records: nothing."""

    __slots__ = ()

    def __init__(self) -> None:
        self.attributes = {}

    def mark(self, name: str) -> None:
        return

    def add(self, name: str, end_ns: int) -> None:
        return

    def end(self, **attributes: str) -> None:
        return


NO_MARKS = NoMarks()


class SpanRecorder:
    """Keeps a sample of the last requests (`ring` of them at most) and the `slowest` of the last one to two minutes.

    Every request is timed, as nobody knows before its end whether it is a slow one. One thread records; `file` may be called there too.
    """

    def __init__(
        self,
        process: str,
        *,
        sample: float = 0.1,
        ring: int = 512,
        slowest: int = 32,
        seed: int = 0,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        if not 0 <= sample <= 1:
            raise InputError.mismatch("--trace-sample", expected="a share of requests, 0 to 1", found=f"{sample:g}")
        self._process, self._sample, self._slowest, self._clock = process, sample, slowest, clock
        self._ring: deque[Trace] = deque(maxlen=ring)
        self._slow: list[tuple[int, int, Trace]] = []
        self._slow_before: list[tuple[int, int, Trace]] = []
        self._window_ends = clock() + _SLOW_WINDOW_NS
        self._random = np.random.default_rng(seed).random
        self._numbers = itertools.count()
        self.seen = 0

    def begin(self) -> Marks:
        """A request begins."""
        return Marks(self, self._clock)

    def keep(self, spans: tuple[Span, ...], attributes: dict[str, str]) -> None:
        """A request has ended; most are forgotten here."""
        self.seen += 1
        whole = spans[0]
        if whole.end_ns >= self._window_ends:
            self._slow_before, self._slow = self._slow, []
            self._window_ends = whole.end_ns + _SLOW_WINDOW_NS
        if self._random() < self._sample:
            self._ring.append(Trace(kept="sampled", attributes=attributes, spans=spans))
        duration = whole.end_ns - whole.start_ns
        if len(self._slow) < self._slowest:
            heapq.heappush(self._slow, (duration, next(self._numbers), Trace(kept="slow", attributes=attributes, spans=spans)))
        elif self._slow and duration > self._slow[0][0]:
            heapq.heapreplace(self._slow, (duration, next(self._numbers), Trace(kept="slow", attributes=attributes, spans=spans)))

    def file(self) -> SpanFile:
        """Everything kept, each request once."""
        traces = {trace.spans: trace for trace in self._ring}
        for _, _, slow in (*self._slow_before, *self._slow):
            traces[slow.spans] = msgspec.structs.replace(slow, kept="both") if slow.spans in traces else slow
        return SpanFile(
            process=self._process,
            pid=os.getpid(),
            seen=self.seen,
            sample=self._sample,
            unix_offset_ns=time.time_ns() - self._clock(),
            traces=tuple(sorted(traces.values(), key=lambda trace: trace.spans[0].start_ns)),
        )


def write_spans(file: SpanFile, path: Path) -> None:
    """All or nothing."""
    write_atomically(path, msgspec.json.encode(file) + b"\n")


def read_spans(path: Path) -> SpanFile:
    """A file of spans; raises InputError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=SpanFile)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", fix=_FIX) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is not a file of spans of version 1 ({error})", fix=_FIX) from None
