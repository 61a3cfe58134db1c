"""Chrome traces: the JSON that Perfetto (https://ui.perfetto.dev) and chrome://tracing open, and what makes one valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from ...core.errors import InputError, RunFailed
from ...core.files import write_atomically
from ...core.spans import Trace
from .nodes import Node, NodeRun

Arguments = dict[str, str | int | float]


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Something that took time, in nanoseconds of one clock, on a track (`tid`) of a group (`pid`)."""

    name: str
    cat: str
    start_ns: int
    end_ns: int
    pid: int
    tid: int
    args: Arguments = {}


class Track(msgspec.Struct, frozen=True, kw_only=True):
    """What a track and its group are called."""

    pid: int
    tid: int
    process: str
    thread: str


class Complete(msgspec.Struct, frozen=True, kw_only=True, tag_field="ph", tag="X"):
    """A complete event of the format; `ts` and `dur` in microseconds."""

    name: str
    cat: str
    ts: float
    dur: float
    pid: int
    tid: int
    args: Arguments = {}


class Metadata(msgspec.Struct, frozen=True, kw_only=True, tag_field="ph", tag="M"):
    """A name for a track or a group: `args` is `{"name": …}`."""

    name: str
    pid: int
    tid: int
    args: Arguments


class ChromeTrace(msgspec.Struct, frozen=True, kw_only=True):
    """A whole file."""

    traceEvents: tuple[Complete | Metadata, ...]  # noqa: N815 - the format's word
    displayTimeUnit: str = "ns"  # noqa: N815
    otherData: Arguments = {}  # noqa: N815


def chrome_trace(slices: Sequence[Slice], tracks: Sequence[Track], about: Arguments) -> ChromeTrace:
    """Slices as events that count from the earliest one, outer ones first; raises RunFailed for what is no valid trace."""
    if not slices:
        raise InputError("trace", "nothing was recorded", fix="trace for longer, and while requests come")
    zero = min(s.start_ns for s in slices)
    events: list[Complete | Metadata] = []
    for pid, process in {track.pid: track.process for track in tracks}.items():
        events.append(Metadata(name="process_name", pid=pid, tid=0, args={"name": process}))
        events.append(Metadata(name="process_sort_index", pid=pid, tid=0, args={"sort_index": pid}))
    events += [Metadata(name="thread_name", pid=t.pid, tid=t.tid, args={"name": t.thread}) for t in tracks]
    for s in sorted(slices, key=lambda s: (s.pid, s.tid, s.start_ns, -s.end_ns)):
        ts, dur = (s.start_ns - zero) / 1e3, (s.end_ns - s.start_ns) / 1e3
        events.append(Complete(name=s.name, cat=s.cat, ts=ts, dur=dur, pid=s.pid, tid=s.tid, args=s.args))
    found = ChromeTrace(traceEvents=tuple(events), otherData=about)
    problems = flaws(found)
    if problems:
        raise RunFailed("trace", f"the events do not fit together: {problems[0]}")
    return found


def flaws(trace: ChromeTrace) -> list[str]:
    """Why a viewer would refuse or misread a trace; empty when it would not.

    On one track events must come in order of time, and each must lie inside the one before or after its end.
    """
    found: list[str] = []
    processes = {e.pid for e in trace.traceEvents if isinstance(e, Metadata) and e.name == "process_name"}
    threads = {(e.pid, e.tid) for e in trace.traceEvents if isinstance(e, Metadata) and e.name == "thread_name"}
    around: dict[tuple[int, int], list[tuple[int, str]]] = {}
    last: dict[tuple[int, int], int] = {}
    for event in trace.traceEvents:
        if isinstance(event, Metadata):
            continue
        track = (event.pid, event.tid)
        start, end = round(event.ts * 1e3), round((event.ts + event.dur) * 1e3)
        if event.pid not in processes or track not in threads:
            found.append(f"'{event.name}' is on a track without a name ({event.pid}, {event.tid})")
        if not event.name or start < 0 or end < start:
            found.append(f"'{event.name}' starts at {event.ts} µs and takes {event.dur} µs")
        if start < last.get(track, 0):
            found.append(f"'{event.name}' comes after what starts later")
        last[track] = start
        stack = around.setdefault(track, [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack and end > stack[-1][0]:
            found.append(f"'{event.name}' ends after '{stack[-1][1]}', inside which it starts")
        stack.append((end, event.name))
    return found


def write_chrome(trace: ChromeTrace, path: Path) -> None:
    """All or nothing."""
    write_atomically(path, msgspec.json.encode(trace) + b"\n")


def read_chrome(path: Path) -> ChromeTrace:
    """A trace that was written here; raises InputError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ChromeTrace)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is not a Chrome trace ({error})") from None


def span_slices(traces: Sequence[Trace], pid: int, process: str) -> tuple[list[Slice], list[Track], list[int]]:
    """Requests on as few tracks as they need: those that overlap in time go on different ones. The last list has each request's track."""
    slices: list[Slice] = []
    ends: list[int] = []
    lanes: list[int] = []
    for trace in traces:
        whole = trace.spans[0]
        lane = next((i for i, end in enumerate(ends) if end <= whole.start_ns), len(ends))
        ends[lane : lane + 1] = [whole.end_ns]
        lanes.append(lane + 1)
        args: Arguments = {**trace.attributes, "kept": trace.kept}
        for number, span in enumerate(trace.spans):
            slices.append(
                Slice(
                    name=span.name,
                    cat="span",
                    start_ns=span.start_ns,
                    end_ns=span.end_ns,
                    pid=pid,
                    tid=lane + 1,
                    args=args if number == 0 else {},
                )
            )
    tracks = [Track(pid=pid, tid=i + 1, process=process, thread=f"requests {i + 1}") for i in range(len(ends))]
    return slices, tracks, lanes


def node_slices(runs: Iterable[tuple[NodeRun | None, int]], nodes: Sequence[Node], pid: int) -> list[Slice]:
    """Nodes below the infer span they belong to; each run with its request's track."""
    slices = []
    for run, tid in runs:
        if run is None:
            continue
        slices.append(Slice(name="run", cat="runtime", start_ns=run.start_ns, end_ns=run.end_ns, pid=pid, tid=tid))
        for call in run.calls:
            node = nodes[call.node]
            slices.append(
                Slice(
                    name=node.name,
                    cat="node",
                    start_ns=call.start_ns,
                    end_ns=call.end_ns,
                    pid=pid,
                    tid=tid,
                    args={"op": node.op},
                )
            )
    return slices
