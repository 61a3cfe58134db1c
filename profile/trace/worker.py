"""The traced process: `python -m liftgate.profile.trace.worker 0,1` obeys as the measuring worker does, under its runtime's profiler.

Its blocks answer no service times, so nothing that judges can be fed by it: what it found is written to `trace.json` in the folder of the
requests when it stops.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from ...core.files import write_atomically
from ...core.spans import INFER, POSTPROCESS, SpanRecorder
from ...runtime.session import Session, SessionSettings
from ..protocol import Block, BlockDone, Ended, Open
from ..worker import Worker, main
from .nodes import BLOCK_KEY, REQUEST_KEY, RUN_KEY, Call, Node, NodeRun, NodeTimes, WorkerTrace, ordered, read_ort

if TYPE_CHECKING:
    import torch

TRACE_FILE = "trace.json"
_MOST_REQUESTS = 200_000


class _Profiler(Protocol):
    """Runs a model and knows how long its nodes took."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def end(self) -> NodeTimes | None: ...


class TraceWorker(Worker):
    """A worker whose session is profiled."""

    def __init__(self, command: Open) -> None:
        self._folder = Path(command.requests).parent
        super().__init__(command)
        self._profiler = _profiler_of(self.session)
        self._recorder = SpanRecorder(f"trace of {self.session.ref.name}", sample=1, ring=_MOST_REQUESTS, slowest=0)
        self._blocks = self._runs = 0

    def settings(self, command: Open) -> SessionSettings:
        return msgspec.structs.replace(super().settings(command), node_times=str(self._folder / "nodes"))

    def block(self, command: Block) -> BlockDone:
        """Answer the requests of one block, each in spans; the answer holds no times."""
        for index in command.indices[: command.warmup]:
            self._profiler.run(self.feeds[index])
            self._runs += 1
        gc.disable()
        for index in command.indices:
            marks = self._recorder.begin()
            outputs = self._profiler.run(self.feeds[index])
            marks.mark(INFER)
            np.argsort(-self.session.signature.scores(outputs, where=self.session.ref.name), kind="stable")
            marks.mark(POSTPROCESS)
            marks.end(**{REQUEST_KEY: str(index), BLOCK_KEY: str(self._blocks), RUN_KEY: str(self._runs)})
            self._runs += 1
        gc.enable()
        self._blocks += 1
        return BlockDone(samples=b"", waited_ns=None, ran_ns=None)

    def end(self) -> Ended:
        found = WorkerTrace(spans=self._recorder.file(), nodes=self._profiler.end())
        write_atomically(self._folder / TRACE_FILE, msgspec.json.encode(found))
        return super().end()


def _profiler_of(session: Session) -> _Profiler:
    if session.ref.runtime == "onnxruntime":
        return _OrtProfiler(session)
    if session.ref.runtime == "pytorch":
        return _TorchProfiler(session)
    return _NoProfiler(session)


class _NoProfiler:
    """A runtime that tells nothing."""

    def __init__(self, session: Session) -> None:
        self.run = session.run

    def end(self) -> NodeTimes | None:
        return None


class _OrtProfiler:
    """ONNX Runtime records since the session was opened: the runs before this object came are left out."""

    def __init__(self, session: Session) -> None:
        from ...runtime.onnx_session import OnnxSession  # noqa: PLC0415 - onnxruntime takes a second to import

        if not isinstance(session, OnnxSession):
            raise AssertionError("models of the runtime onnxruntime are OnnxSessions")
        self._session = session
        self._asked = 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._asked += 1
        return self._session.run(feeds)

    def end(self) -> NodeTimes | None:
        unix_offset_ns = time.time_ns() - time.perf_counter_ns()
        path, begun_unix_ns = self._session.end_node_times()
        times = read_ort(path, begun_unix_ns - unix_offset_ns)
        path.unlink()
        # One run for the first answer. Its profile holds a million events; what came later is not in it.
        return msgspec.structs.replace(times, runs=times.runs[1 : 1 + self._asked])


class _TorchProfiler:
    """PyTorch's own profiler (Kineto), operators on CPU, with a mark around every run."""

    def __init__(self, session: Session) -> None:
        import torch  # noqa: PLC0415 - torch takes seconds
        from torch.profiler import ProfilerActivity, profile, record_function  # noqa: PLC0415

        session_run = session.run
        self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True)

        def run(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            with torch.inference_mode(), record_function(INFER):
                return session_run(feeds)

        self.run = run
        self._profile.start()

    def end(self) -> NodeTimes | None:
        self._profile.stop()
        unix_offset_ns = time.time_ns() - time.perf_counter_ns()
        results = self._profile.profiler.kineto_results if self._profile.profiler is not None else None
        return None if results is None else torch_times(results.events(), unix_offset_ns)


def torch_times(events: list[torch._C._autograd._KinetoEvent], unix_offset_ns: int) -> NodeTimes:
    """Kineto's events as node times: an operator is told from others of its kind by how manieth it is in its run."""
    events = sorted(events, key=lambda e: (e.start_ns(), -e.duration_ns()))
    nodes: dict[tuple[str, int], int] = {}
    known: list[Node] = []
    runs: list[NodeRun] = []
    calls: list[Call] = []
    seen: Counter[str] = Counter()
    run: tuple[int, int] | None = None

    def close() -> None:
        if run is not None:
            runs.append(NodeRun(*run, ordered(calls)))

    for event in events:
        start, end = event.start_ns() - unix_offset_ns, event.start_ns() + event.duration_ns() - unix_offset_ns
        name = event.name()
        if name == INFER:
            close()
            run, calls, seen = (start, end), [], Counter()
        elif run is not None and end <= run[1]:
            key = (name, seen[name])
            seen[name] += 1
            if key not in nodes:
                nodes[key] = len(known)
                shapes = ", ".join(str(list(shape)) for shape in event.shapes())
                known.append(Node(name=f"{name} #{key[1]}", op=name, shapes=shapes, parameter_bytes=0))
            calls.append(Call(nodes[key], start, end))
    close()
    return NodeTimes(runtime="pytorch", resolution_ns=1, nodes=tuple(known), runs=tuple(runs))


if __name__ == "__main__":
    main(TraceWorker)
