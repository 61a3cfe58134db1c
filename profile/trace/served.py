"""`profile trace --pid | --spans`: what a router recorded of its requests, and py-spy's stacks of it, in one Chrome trace."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ...core.errors import InputError
from ...core.machine import this_machine
from ...core.progress import Progress, silent
from ...core.spans import SpanFile, read_spans
from ..inputs import check_duration
from ..run_folder import check_file
from .chrome import Slice, Track, chrome_trace, span_slices, write_chrome
from .result import SpanPart, TracedService
from .sampler import check_traceable, sample
from .stacks import stack_slices

_SPANS_GROUP, _STACKS_GROUP = 1, 2
_FIX = "start it with `liftgate serve … --trace DIR`"
# The router writes its spans every second.
_PATIENCE_S = 3.0


def trace_served(
    out: Path,
    *,
    pid: int | None = None,
    spans: Path | None = None,
    seconds: float = 5.0,
    native: bool = True,
    progress: Progress = silent,
) -> TracedService:
    """Sample the process `pid` for `seconds` while it serves, and merge the `spans` (a file, or the folder of `--trace`) that it wrote.

    With `pid` only requests from that time are shown. Raises InputError for a process or file that is not what it must be, RunFailed when
    py-spy fails.
    """
    check_duration(seconds, 1)
    check_file(out)
    if pid is None and spans is None:
        raise InputError.mismatch("profile trace", expected="a model, --pid or --spans", found="none of them")
    file = None if spans is None else find_spans(spans, pid)
    slices: list[Slice] = []
    tracks: list[Track] = []
    notes: list[str] = []
    found = None if file is None else read_spans(file)
    if pid is not None:
        check_traceable(pid)
        begun = time.perf_counter_ns()
        slices, tracks, notes = _stacks(pid, seconds, native, progress)
        if file is not None:
            found = _within(_written_after(file, time.time()), begun, time.perf_counter_ns(), notes)
    if found is None:
        notes.append(f"stacks only: give --spans the folder that its requests are recorded in ({_FIX})")
    else:
        more, rows, _ = span_slices(found.traces, _SPANS_GROUP, f"{found.process} (process {found.pid}): requests")
        slices, tracks = [*more, *slices], [*rows, *tracks]
    write_chrome(chrome_trace(slices, tracks, {"machine": this_machine().cpu}), out)
    traces = () if found is None else found.traces
    return TracedService(
        pid=pid if pid is not None or found is None else found.pid,  # type: ignore[arg-type]  # one of them was given
        machine=this_machine(),
        trace=str(out),
        seen=0 if found is None else found.seen,
        sampled=sum(t.kept != "slow" for t in traces),
        slow=sum(t.kept != "sampled" for t in traces),
        parts=() if found is None else parts(found),
        notes=tuple(notes),
    )


def find_spans(where: Path, pid: int | None) -> Path:
    """The file itself, or in a folder that of the process `pid`, or the only one; raises InputError."""
    if not where.is_dir():
        return where
    files = sorted(where.glob(f"spans-{'*' if pid is None else pid}.json"))
    whose = "a file of spans" if pid is None else f"spans-{pid}.json"
    if not files:
        there = ", ".join(sorted(f.name for f in where.glob("spans-*.json"))) or "none"
        raise InputError.mismatch(str(where), expected=whose, found=there, fix=_FIX)
    if len(files) > 1:
        raise InputError.mismatch(str(where), expected="one file of spans", found=", ".join(f.name for f in files), fix="name one of them")
    return files[0]


def parts(file: SpanFile) -> tuple[SpanPart, ...]:
    """Every kind of span, in the order in which they come in a request."""
    names = dict.fromkeys(span.name for trace in sorted(file.traces, key=lambda t: -len(t.spans)) for span in trace.spans)
    found = []
    for name in names:
        sampled, slow = ([ns / 1e6 for ns in _durations(file, name, other)] for other in ("slow", "sampled"))
        quartiles = tuple(float(q) for q in np.quantile(sampled, [0.25, 0.5, 0.75])) if sampled else None
        found.append(SpanPart(name=name, quartiles_ms=quartiles, slow_ms=float(np.mean(slow)) if slow else None))  # type: ignore[arg-type]  # three quantiles
    return tuple(found)


def _durations(file: SpanFile, name: str, other: str) -> list[int]:
    """Nanoseconds per request that was kept for another reason than only `other`."""
    return [sum(s.end_ns - s.start_ns for s in t.spans if s.name == name) for t in file.traces if t.kept != other]


def _stacks(pid: int, seconds: float, native: bool, progress: Progress) -> tuple[list[Slice], list[Track], list[str]]:
    begun = time.monotonic()

    def tell() -> None:
        progress("sampling", min(round(seconds), int(time.monotonic() - begun)), round(seconds))
        time.sleep(0.1)

    with TemporaryDirectory(prefix="liftgate-") as folder:
        path = Path(folder) / "stacks.json"
        told = sample(pid, path, "chrometrace", seconds=seconds, native=native, where="profile trace", meanwhile=tell)
        slices, tracks = stack_slices(path, told.begun_ns, _STACKS_GROUP, f"process {pid}: stacks by py-spy, 100 per second")
    return slices, tracks, list(told.notes)


def _written_after(file: Path, moment: float) -> SpanFile:
    """The spans as written after `moment`; as they are when the router writes none any more."""
    deadline = time.monotonic() + _PATIENCE_S
    while file.stat().st_mtime < moment and time.monotonic() < deadline:
        time.sleep(0.05)
    return read_spans(file)


def _within(file: SpanFile, begin_ns: int, end_ns: int, notes: list[str]) -> SpanFile | None:
    """Only the requests of that time."""
    traces = tuple(t for t in file.traces if t.spans[0].end_ns > begin_ns and t.spans[0].start_ns < end_ns)
    if traces:
        return msgspec.structs.replace(file, traces=traces)
    notes.append("no request was recorded while py-spy sampled")
    return None
