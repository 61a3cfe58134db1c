"""The session that peers measure, in their own environment: needs ONNX Runtime and numpy, not liftgate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import onnxruntime


def make_call(model: str, feeds: str, delay_share: float) -> Callable[[], None]:
    """A callable that answers the next request of the folder `feeds` (a .npz each) with one thread.

    A busy wait adds `delay_share` of its time to every request: the model that is truly slower.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    requests = cycle([dict(np.load(file)) for file in sorted(Path(feeds).glob("*.npz"))])

    def call() -> None:
        begun = time.perf_counter_ns()
        session.run(None, next(requests))
        now = time.perf_counter_ns()
        until = now + int((now - begun) * delay_share)
        while time.perf_counter_ns() < until:
            pass

    return call


def call_of_environment() -> Callable[[], None]:
    """The same, from the environment variables MODEL, FEEDS and DELAY_SHARE; pins this process to CPU."""
    os.sched_setaffinity(0, {int(os.environ["CPU"])})
    return make_call(os.environ["MODEL"], os.environ["FEEDS"], float(os.environ["DELAY_SHARE"]))
