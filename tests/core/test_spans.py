from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from liftgate.core.errors import InputError
from liftgate.core.spans import INFER, NO_MARKS, PARSE, REQUEST, Span, SpanRecorder, read_spans, write_spans


class Clock:
    """Says what it was set to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def asker(recorder: SpanRecorder, clock: Clock) -> Callable[[int], None]:
    def ask(duration: int) -> None:
        marks = recorder.begin()
        clock.now += duration
        marks.mark(INFER)
        marks.end(duration=str(duration))

    return ask


def test_marks_follow_one_another_inside_the_whole_request() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=1, clock=clock)
    marks = recorder.begin()
    clock.now = 30
    marks.mark(PARSE)
    marks.add(INFER, 70)
    clock.now = 100
    marks.end(arm="control")
    (trace,) = recorder.file().traces
    assert trace.spans == (Span(REQUEST, 0, 100), Span(PARSE, 0, 30), Span(INFER, 30, 70))
    assert (trace.attributes, trace.duration_ns) == ({"arm": "control"}, 100)


def test_an_end_before_the_last_one_gives_an_empty_span_and_not_a_negative_one() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=1, clock=clock)
    clock.now = 50
    marks = recorder.begin()
    marks.add(INFER, 20)
    marks.end()
    assert recorder.file().traces[0].spans[1] == Span(INFER, 50, 50)


def test_the_slowest_requests_are_kept_although_none_is_sampled() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=0, slowest=2, clock=clock)
    ask = asker(recorder, clock)
    for duration in (5, 90, 7, 80, 6):
        ask(duration)
    file = recorder.file()
    assert [(t.kept, t.duration_ns) for t in file.traces] == [("slow", 90), ("slow", 80)]
    assert file.seen == 5


def test_slow_requests_are_forgotten_after_two_minutes() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=0, slowest=1, clock=clock)
    ask = asker(recorder, clock)
    ask(10**9)
    clock.now += 61 * 10**9
    ask(5)
    assert [t.duration_ns for t in recorder.file().traces] == [10**9, 5]
    clock.now += 61 * 10**9
    ask(6)
    assert [t.duration_ns for t in recorder.file().traces] == [5, 6]


def test_memory_holds_the_last_requests_only() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=1, ring=3, slowest=0, clock=clock)
    ask = asker(recorder, clock)
    for duration in range(1, 8):
        ask(duration)
    assert [t.duration_ns for t in recorder.file().traces] == [5, 6, 7]


def test_a_share_of_the_requests_is_sampled() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=0.25, ring=10_000, slowest=0, clock=clock)
    ask = asker(recorder, clock)
    for _ in range(4000):
        ask(1)
    assert 900 < len(recorder.file().traces) < 1100


def test_a_request_that_is_sampled_and_slow_is_written_once() -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=1, clock=clock)
    asker(recorder, clock)(4)
    assert [t.kept for t in recorder.file().traces] == ["both"]


def test_nothing_is_kept_where_nobody_records() -> None:
    NO_MARKS.mark(PARSE)
    NO_MARKS.add(INFER, 5)
    NO_MARKS.end(arm="control")
    assert NO_MARKS.attributes == {}


def test_a_file_of_spans_reads_back(tmp_path: Path) -> None:
    clock = Clock()
    recorder = SpanRecorder("test", sample=1, clock=clock)
    asker(recorder, clock)(4)
    write_spans(recorder.file(), tmp_path / "spans.json")
    assert read_spans(tmp_path / "spans.json").traces == recorder.file().traces


@pytest.mark.parametrize("body", ["", "{}", '{"kind": "spans", "schema_version": 2}'])
def test_a_damaged_file_of_spans_is_refused_with_what_to_do(tmp_path: Path, body: str) -> None:
    (tmp_path / "spans.json").write_text(body)
    with pytest.raises(InputError, match="is not a file of spans of version 1"):
        read_spans(tmp_path / "spans.json")


def test_a_share_above_one_is_refused() -> None:
    with pytest.raises(InputError, match="a share of requests, 0 to 1, found 2"):
        SpanRecorder("test", sample=2)
