from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from liftgate.core.errors import RunFailed
from liftgate.core.spans import INFER, REQUEST, Span, SpanFile, Trace
from liftgate.profile.trace.nodes import BLOCK_KEY, REQUEST_KEY, RUN_KEY, Call, Node, NodeRun, NodeTimes, WorkerTrace, fit, read_ort
from liftgate.profile.trace.times import own_ns, slowest, times_of, typical


def event(name: str, ts: int, dur: int, op: str = "", index: str = "0") -> dict[str, object]:
    if not op:
        return {"cat": "Session", "name": name, "ts": ts, "dur": dur, "ph": "X", "pid": 1, "tid": 1, "args": {}}
    args = {"op_name": op, "node_index": index, "parameter_size": "256", "output_type_shape": [{"float": [30, 8]}], "provider": "CPU"}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "ph": "X", "pid": 1, "tid": 1, "args": args}


def profile(path: Path) -> Path:
    """Two runs; the first has a loop around another node, which is written first."""
    events = [
        event("model_loading_array", 0, 90),
        event("body", 110, 20, "MatMul", "0"),
        event("loop", 105, 40, "Loop", "1"),
        event("last", 150, 5, "Relu", "2"),
        event("SequentialExecutor::Execute", 102, 60),
        event("model_run", 100, 70),
        event("last", 210, 7, "Relu", "2"),
        event("model_run", 200, 30),
    ]
    path.write_text(json.dumps(events))
    return path


def test_a_profile_of_onnx_runtime_gives_runs_with_their_nodes(tmp_path: Path) -> None:
    found = read_ort(profile(tmp_path / "p.json"), begun_ns=1_000)
    assert found.nodes[0] == Node(name="body", op="MatMul", shapes="float[30, 8]", parameter_bytes=256)
    assert [n.name for n in found.nodes] == ["body", "loop", "last"]
    first, second = found.runs
    assert (first.start_ns, first.end_ns) == (101_000, 171_000)
    assert first.calls == (Call(1, 106_000, 146_000), Call(0, 111_000, 131_000), Call(2, 151_000, 156_000))
    assert second.calls == (Call(2, 211_000, 218_000),)
    assert found.resolution_ns == 1000


def test_a_node_does_not_count_what_the_nodes_inside_it_took(tmp_path: Path) -> None:
    first = read_ort(profile(tmp_path / "p.json"), begun_ns=0).runs[0]
    assert own_ns(first) == [(1, 20_000), (0, 20_000), (2, 5_000)]


def test_a_damaged_profile_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("[{")
    with pytest.raises(RunFailed, match="ONNX Runtime's profile cannot be read"):
        read_ort(tmp_path / "p.json", 0)


def test_a_run_inside_its_span_stays_where_it_is() -> None:
    run = NodeRun(10, 90, (Call(0, 20, 80),))
    assert fit(run, 0, 100) == run


def test_a_run_before_its_span_is_moved_as_little_as_possible() -> None:
    assert fit(NodeRun(-7, 80, (Call(0, 0, 70),)), 0, 100) == NodeRun(0, 87, (Call(0, 7, 77),))
    assert fit(NodeRun(50, 130, (Call(0, 60, 120),)), 0, 100) == NodeRun(20, 100, (Call(0, 30, 90),))


def test_what_sticks_out_of_what_holds_it_is_cut() -> None:
    # Whole microseconds: a loop of 40 that holds nodes up to 41, and a span shorter than the run.
    run = NodeRun(0, 50, (Call(0, 0, 40), Call(1, 30, 41), Call(2, 39, 60)))
    found = fit(run, 0, 45)
    assert found == NodeRun(0, 45, (Call(0, 0, 40), Call(1, 30, 40), Call(2, 39, 40)))


def worker_trace(infer_us: list[int], runs: int) -> WorkerTrace:
    """Requests of the given length, one node of 10 µs in each; the profiler was full after `runs` of them."""
    traces, node_runs, now = [], [], 0
    for number, us in enumerate(infer_us):
        span = Span(INFER, now, now + us * 1000)
        keys = {REQUEST_KEY: str(number), BLOCK_KEY: str(number // 2), RUN_KEY: str(number)}
        traces.append(Trace(kept="sampled", attributes=keys, spans=(Span(REQUEST, now, now + us * 1000), span)))
        node_runs.append(NodeRun(now, now + us * 1000, (Call(0, now, now + 10_000),)))
        now += us * 1000
    spans = SpanFile(process="t", pid=1, seen=len(infer_us), sample=1, unix_offset_ns=0, traces=tuple(traces))
    nodes = NodeTimes(runtime="onnxruntime", resolution_ns=1000, nodes=(Node("mul", "Mul", "", 0),), runs=tuple(node_runs[:runs]))
    return WorkerTrace(spans=spans, nodes=nodes)


def test_times_are_microseconds_per_request_and_node() -> None:
    found = times_of(worker_trace([30, 40, 50], 3))
    assert found.infer.tolist() == [30, 40, 50]
    assert found.own.tolist() == [[10], [10], [10]]
    assert found.outside.tolist() == [20, 30, 40]
    assert (found.block.tolist(), found.request.tolist(), found.lost) == ([0, 0, 1], [0, 1, 2], 0)


def test_requests_after_the_profiler_was_full_are_counted_and_left_out() -> None:
    found = times_of(worker_trace([30, 40, 50], 2))
    assert (found.infer.tolist(), found.lost) == ([30, 40], 1)


def test_a_runtime_without_node_times_still_has_spans() -> None:
    found = times_of(WorkerTrace(spans=worker_trace([30, 40], 2).spans, nodes=None))
    assert (found.infer.tolist(), found.own.shape, found.outside.tolist()) == ([30, 40], (2, 0), [30, 40])


def test_typical_requests_lie_between_the_quartiles_and_slow_ones_are_one_percent() -> None:
    infer = np.arange(200.0)
    assert infer[typical(infer)].tolist() == list(range(50, 150))
    assert infer[slowest(infer)].tolist() == [198, 199]
    assert slowest(np.array([3.0, 1.0])).tolist() == [True, False]
