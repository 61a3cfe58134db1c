from __future__ import annotations

import json
from pathlib import Path

import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.spans import INFER, PARSE, REQUEST, Span, Trace
from liftgate.profile.trace.chrome import (
    Complete,
    Metadata,
    Slice,
    Track,
    chrome_trace,
    flaws,
    node_slices,
    read_chrome,
    span_slices,
    write_chrome,
)
from liftgate.profile.trace.nodes import Call, Node, NodeRun
from liftgate.profile.trace.stacks import stack_slices

TRACK = Track(pid=1, tid=1, process="v1.0", thread="requests 1")


def piece(name: str, start: int, end: int, tid: int = 1) -> Slice:
    return Slice(name=name, cat="span", start_ns=start, end_ns=end, pid=1, tid=tid)


def request(start: int, end: int) -> Trace:
    spans = (Span(REQUEST, start, end), Span(PARSE, start, start + 10), Span(INFER, start + 10, end))
    return Trace(kept="sampled", attributes={"arm": "control"}, spans=spans)


def test_events_count_microseconds_from_the_earliest_and_outer_ones_come_first() -> None:
    found = chrome_trace([piece("inner", 2_500, 3_000), piece("outer", 2_500, 9_001)], [TRACK], {})
    slices = [e for e in found.traceEvents if isinstance(e, Complete)]
    assert [(e.name, e.ts, e.dur) for e in slices] == [("outer", 0.0, 6.501), ("inner", 0.0, 0.5)]
    names = [(e.name, e.args["name"]) for e in found.traceEvents if isinstance(e, Metadata) and e.name != "process_sort_index"]
    assert names == [("process_name", "v1.0"), ("thread_name", "requests 1")]


def test_the_file_is_what_viewers_read(tmp_path: Path) -> None:
    write_chrome(chrome_trace([piece("a", 0, 1_000)], [TRACK], {"model": "v1.0"}), tmp_path / "t.json")
    raw = json.loads((tmp_path / "t.json").read_text())
    assert raw["traceEvents"][-1] == {"ph": "X", "name": "a", "cat": "span", "ts": 0.0, "dur": 1.0, "pid": 1, "tid": 1, "args": {}}
    assert {e["ph"] for e in raw["traceEvents"]} == {"M", "X"}
    assert flaws(read_chrome(tmp_path / "t.json")) == []


def test_an_event_that_begins_inside_another_and_ends_after_it_is_a_flaw() -> None:
    with pytest.raises(RunFailed, match="'b' ends after 'a', inside which it starts"):
        chrome_trace([piece("a", 0, 10), piece("b", 5, 15)], [TRACK], {})


def test_an_event_on_a_track_without_a_name_is_a_flaw() -> None:
    with pytest.raises(RunFailed, match=r"'a' is on a track without a name \(1, 2\)"):
        chrome_trace([piece("a", 0, 10, tid=2)], [TRACK], {})


def test_order_and_negative_times_are_checked() -> None:
    good = chrome_trace([piece("a", 0, 10_000), piece("b", 20_000, 30_000)], [TRACK], {})
    meta = [e for e in good.traceEvents if isinstance(e, Metadata)]
    first, second = (e for e in good.traceEvents if isinstance(e, Complete))
    swapped = type(good)(traceEvents=(*meta, second, first))
    assert flaws(swapped) == ["'a' comes after what starts later"]
    backwards = Complete(name="c", cat="", ts=40.0, dur=-1.0, pid=1, tid=1)
    assert flaws(type(good)(traceEvents=(*meta, first, second, backwards))) == ["'c' starts at 40.0 µs and takes -1.0 µs"]


def test_nothing_recorded_is_said_so() -> None:
    with pytest.raises(InputError, match="nothing was recorded; trace for longer"):
        chrome_trace([], [], {})


def test_requests_at_the_same_time_get_tracks_of_their_own() -> None:
    slices, tracks, lanes = span_slices([request(0, 100), request(50, 200), request(100, 150)], 1, "serve")
    assert lanes == [1, 2, 1]
    assert [t.thread for t in tracks] == ["requests 1", "requests 2"]
    assert flaws(chrome_trace(slices, tracks, {})) == []


def test_nodes_nest_inside_the_infer_span_of_their_request() -> None:
    slices, tracks, lanes = span_slices([request(0, 100)], 1, "v1.0")
    run = NodeRun(20, 90, (Call(0, 30, 50), Call(1, 60, 80)))
    nodes = node_slices(zip([run], lanes, strict=True), [Node("mul", "Mul", "", 0), Node("sum", "ReduceSum", "", 0)], 1)
    found = chrome_trace([*slices, *nodes], tracks, {})
    order = [e.name for e in found.traceEvents if isinstance(e, Complete)]
    assert order == [REQUEST, PARSE, INFER, "run", "mul", "sum"]


def frame(ph: str, name: str, ts: int, tid: int = 7) -> dict[str, object]:
    return {"ph": ph, "name": name, "ts": ts, "pid": 99, "tid": tid, "cat": "py-spy", "args": {"filename": "a.py", "line": 3}}


def test_stacks_become_slices_that_nest_as_the_frames_did(tmp_path: Path) -> None:
    frames = [
        frame("B", "main", 10),
        frame("B", "work", 10),
        frame("E", "work", 30),
        frame("B", "rest", 30),
        frame("B", "other", 12, tid=8),
        frame("E", "rest", 50),
        frame("E", "main", 50),
    ]
    (tmp_path / "s.json").write_text(json.dumps(frames))
    slices, tracks = stack_slices(tmp_path / "s.json", 1_000_000, 2, "stacks")
    assert {(s.name, s.start_ns, s.end_ns, s.tid) for s in slices} == {
        ("main", 1_010_000, 1_050_000, 1),
        ("work", 1_010_000, 1_030_000, 1),
        ("rest", 1_030_000, 1_050_000, 1),
        ("other", 1_012_000, 1_050_000, 2),  # never closed: it was there at the end
    }
    assert [t.thread for t in tracks] == ["thread 0x7", "thread 0x8"]
    assert flaws(chrome_trace(slices, tracks, {})) == []


def test_frames_of_the_same_time_keep_their_order(tmp_path: Path) -> None:
    frames = [frame("B", "outer", 0), frame("B", "inner", 0), frame("E", "inner", 9), frame("E", "outer", 9)]
    (tmp_path / "s.json").write_text(json.dumps(frames))
    slices, tracks = stack_slices(tmp_path / "s.json", 0, 2, "stacks")
    assert [e.name for e in chrome_trace(slices, tracks, {}).traceEvents if isinstance(e, Complete)] == ["outer", "inner"]
