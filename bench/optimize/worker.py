"""`python -m liftgate.bench.optimize.worker SPEC`: one variant in a process of its own, pinned to one core, driven over pipes.

One JSON command a line on standard input, one JSON answer a line on standard output; it sleeps between commands. What libraries print goes
to standard error.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ...core.artifact import read_artifact
from ...core.requests import Requests
from ...core.signature import Signature
from .protocol import Command, Failed, Loaded, Score, Scored, Spec, Stop, Time, Timed
from .variants import Job
from .wire import decode, encode

Feeds = Mapping[str, np.ndarray]
# Turns the feeds of one request into a call without arguments: what a server would have ready is prepared outside the timing.
Prepare = Callable[[Feeds], Callable[[], np.ndarray]]


def main(spec: Spec) -> None:
    """Load the variant, then serve commands until told to stop."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    if spec.core is not None:
        os.sched_setaffinity(0, {spec.core})

    def answer(what: Loaded | Timed | Scored | Failed) -> None:
        answers.write(encode(what) + b"\n")

    try:
        signature, prepare = _load(spec)
        calls = {count: [prepare(feeds) for feeds in Requests.read(path).feeds(signature)] for count, path in spec.timed.items()}
        for prepared in calls.values():
            for call in prepared[:3]:
                call()
    except Exception as error:  # whatever a runtime trips over is its result
        answer(Failed(reason=_said(error)))
        return
    answer(Loaded())
    for line in sys.stdin.buffer:
        try:
            match decode(line, Command):
                case Time() as asked:
                    answer(Timed(ns=_time(calls[asked.candidates], asked)))
                case Score() as asked:
                    _score(prepare, signature, asked)
                    answer(Scored())
                case Stop():
                    return
        except Exception as error:
            answer(Failed(reason=_said(error)))


def _time(calls: list[Callable[[], np.ndarray]], asked: Time) -> list[int]:
    """Nanoseconds of each call, after `warm` calls that are not counted."""
    for number in range(asked.warm):
        calls[(asked.first - 1 - number) % len(calls)]()
    found = []
    for number in range(asked.count):
        call = calls[(asked.first + number) % len(calls)]
        start = time.perf_counter_ns()
        call()
        found.append(time.perf_counter_ns() - start)
    return found


def _score(prepare: Prepare, signature: Signature, asked: Score) -> None:
    """Scores of requests, float32 `[requests, candidates]`, as a .npy file; copied, as a runtime may reuse its output."""
    everything = Requests.read(asked.requests)
    chosen = everything if asked.only is None else everything.take(asked.only)
    np.save(asked.out, np.stack([np.array(prepare(feeds)()).reshape(-1) for feeds in chosen.feeds(signature)]))


def _load(spec: Spec) -> tuple[Signature, Prepare]:
    signature = read_artifact(spec.job.base).manifest.signature
    match spec.runner:
        case "onnxruntime":
            return signature, _onnxruntime(spec.path)
        case "liftgate":
            return _liftgate(spec.path)
        case "openvino":
            return signature, _openvino(spec)
        case _:
            return signature, _torch(spec.job, signature, compiled=spec.runner == "compile")


def _onnxruntime(path: Path) -> Prepare:
    import onnxruntime as ort  # noqa: PLC0415 - each runtime is in one environment only

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    score = [session.get_outputs()[0].name]
    return lambda feeds: lambda: session.run(score, feeds)[0]


def _liftgate(path: Path) -> tuple[Signature, Prepare]:
    from ...core.store import Store  # noqa: PLC0415
    from ...runtime.session import SessionSettings, open_session  # noqa: PLC0415

    session = open_session(read_artifact(path), SessionSettings(threads=1), store=Store(path))
    score = session.signature.score
    name = session.signature.outputs[0].name if score is None else score.output
    return session.signature, lambda feeds: lambda: session.run(feeds)[name]


def _openvino(spec: Spec) -> Prepare:
    import openvino  # noqa: PLC0415

    # Pinned by itself it would leave the core that everything here is measured on.
    properties: dict[str, object] = {
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
    }
    if spec.job.variant == "openvino-fp32":
        properties["INFERENCE_PRECISION_HINT"] = "f32"
    core = openvino.Core()
    model = core.read_model(spec.path)
    compiled: dict[int, openvino.InferRequest] = {}

    def prepare(feeds: Feeds) -> Callable[[], np.ndarray]:
        rows = len(next(iter(feeds.values())))
        if rows not in compiled:
            # Fixed sizes let it plan its memory: its best case.
            model.reshape({name: list(array.shape) for name, array in feeds.items()})
            compiled[rows] = core.compile_model(model, "CPU", properties).create_infer_request()
        request = compiled[rows]
        return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)[0]

    return prepare


def _torch(job: Job, signature: Signature, *, compiled: bool) -> Prepare:
    import torch  # noqa: PLC0415

    from .build.module import module_of  # noqa: PLC0415

    torch.set_num_threads(1)
    module: Callable[..., torch.Tensor] = module_of(job)
    if compiled:
        import torch._inductor.config as inductor  # noqa: PLC0415

        inductor.freezing = True
        module = torch.compile(module, dynamic=False)

    def prepare(feeds: Feeds) -> Callable[[], np.ndarray]:
        arguments = [torch.from_numpy(feeds[spec.name]) for spec in signature.inputs]

        def call() -> np.ndarray:
            with torch.inference_mode() if not compiled else torch.no_grad():
                found: np.ndarray = module(*arguments).numpy()
                return found

        return call

    return prepare


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


if __name__ == "__main__":
    main(decode(sys.argv[1], Spec))
