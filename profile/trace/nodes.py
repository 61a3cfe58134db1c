"""Node times: how long each operator of a model took in each run, as a runtime's profiler tells it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import RunFailed
from ...core.spans import INFER, SpanFile

_KERNEL = "_kernel_time"
# Attributes of the spans of a worker: which request of the pool, in which block, and the how manieth run since the profiler started.
REQUEST_KEY, BLOCK_KEY, RUN_KEY = "request", "block", "run"


class Node(msgspec.Struct, frozen=True):
    """A node of the graph as the runtime runs it; `shapes` are its outputs' in the first run, `parameter_bytes` its constant inputs'.

    Names in PyTorch are made here, from the operator and how often it came before in the run.
    """

    name: str
    op: str
    shapes: str
    parameter_bytes: int


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One execution of the node at position `node`; calls of one run nest (a loop holds the nodes of its body)."""

    node: int
    start_ns: int
    end_ns: int


class NodeRun(msgspec.Struct, frozen=True, array_like=True):
    """One run of the model and its calls in order of their start, longer ones first."""

    start_ns: int
    end_ns: int
    calls: tuple[Call, ...]


class NodeTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Every run since the profiler started, on the monotonic clock; durations are cut to whole `resolution_ns`."""

    runtime: Literal["onnxruntime", "pytorch"]
    resolution_ns: int
    nodes: tuple[Node, ...]
    runs: tuple[NodeRun, ...]


class WorkerTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a traced worker leaves behind: a span per request, and node times where its runtime gives them."""

    spans: SpanFile
    nodes: NodeTimes | None


class _OrtArgs(msgspec.Struct, frozen=True):
    op_name: str = ""
    node_index: str = ""
    parameter_size: str = "0"
    output_type_shape: tuple[dict[str, tuple[int, ...]], ...] = ()


class _OrtEvent(msgspec.Struct, frozen=True):
    cat: str
    name: str
    ts: int
    dur: int = 0
    args: _OrtArgs = _OrtArgs()


def read_ort(path: Path, begun_ns: int) -> NodeTimes:
    """ONNX Runtime's profile with times that count from `begun_ns`; raises RunFailed when the file cannot be understood."""
    try:
        events = msgspec.json.decode(path.read_bytes(), type=tuple[_OrtEvent, ...], strict=False)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFailed("node times", f"ONNX Runtime's profile cannot be read: {error}") from None
    nodes: dict[tuple[str, str, str], int] = {}
    known: list[Node] = []
    runs: list[NodeRun] = []
    calls: list[Call] = []
    for event in events:
        start, end = begun_ns + event.ts * 1000, begun_ns + (event.ts + event.dur) * 1000
        if event.cat == "Node" and event.name.endswith(_KERNEL):
            name = event.name.removesuffix(_KERNEL)
            key = (name, event.args.op_name, event.args.node_index)
            if key not in nodes:
                nodes[key] = len(known)
                known.append(_ort_node(name, event.args))
            calls.append(Call(nodes[key], start, end))
        elif event.name == "model_run":  # written when it ends: its nodes came before
            runs.append(NodeRun(start, end, ordered(calls)))
            calls = []
    return NodeTimes(runtime="onnxruntime", resolution_ns=1000, nodes=tuple(known), runs=tuple(runs))


def _ort_node(name: str, args: _OrtArgs) -> Node:
    shapes = ", ".join(f"{kind}{list(shape)}" for output in args.output_type_shape for kind, shape in output.items())
    return Node(name=name, op=args.op_name, shapes=shapes, parameter_bytes=int(args.parameter_size or 0))


def ordered(calls: Sequence[Call]) -> tuple[Call, ...]:
    """In order of start; what starts together, the longer first."""
    return tuple(sorted(calls, key=lambda call: (call.start_ns, -call.end_ns)))


def fit(run: NodeRun, start_ns: int, end_ns: int) -> NodeRun:
    """`run` moved as little as possible so that it lies within a span, and its calls cut where they stick out of what holds them.

    The profiler's clock is another one than that of the spans (they drift apart by microseconds), and both cut to whole units.
    """
    earliest, latest = start_ns - run.start_ns, end_ns - run.end_ns
    shift = max(earliest, min(0, latest)) if earliest <= latest else earliest
    begin, finish = run.start_ns + shift, min(run.end_ns + shift, end_ns)
    open_ends = [finish]
    last = begin
    calls = []
    for call in run.calls:
        start = min(max(call.start_ns + shift, last), finish)
        while len(open_ends) > 1 and open_ends[-1] <= start:
            open_ends.pop()
        end = max(start, min(call.end_ns + shift, open_ends[-1]))
        calls.append(Call(call.node, start, end))
        open_ends.append(end)
        last = start
    return NodeRun(begin, finish, tuple(calls))


def runs_of(trace: WorkerTrace) -> list[NodeRun | None]:
    """The run inside the infer span of every traced request, aligned with it; None where the profiler recorded none any more."""
    runs = trace.nodes.runs if trace.nodes is not None else ()
    found: list[NodeRun | None] = []
    for request in trace.spans.traces:
        infer = next(span for span in request.spans if span.name == INFER)
        number = int(request.attributes[RUN_KEY])
        found.append(fit(runs[number], infer.start_ns, infer.end_ns) if number < len(runs) else None)
    return found


def read_worker_trace(path: Path) -> WorkerTrace:
    """What a worker wrote; raises RunFailed when it did not."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerTrace)
    except (OSError, msgspec.DecodeError) as error:
        raise RunFailed("tracing", f"the worker left no trace: {error}") from None
