"""optimum-benchmark's numbers for one session after another; run in the peers' environment.

Its backends load models of the Hugging Face hub, not an ONNX file with inputs of its own. So its process launcher and its latency tracker
measure the session here, in the loop of its inference scenario (`run_inference_latency_tracking`, after ten warm-up runs). Processes are
forked rather than spawned, which the launcher offers as well: a spawned one imports torch for seconds. Every line of standard input is a
session (arguments of `measure` as JSON), every line of standard output its percentiles in seconds.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimum_benchmark.benchmark.report import BenchmarkReport  # type: ignore[import-not-found]  # of the peers' environment

WARMUP, ITERATIONS = 10, 10


def measure(model: str, feeds: str, delay_share: float, seconds: float, cpu: int) -> BenchmarkReport:
    """Runs in the process that the launcher starts."""
    from asked import make_call  # type: ignore[import-not-found]  # noqa: PLC0415 - beside this file
    from optimum_benchmark.benchmark.report import BenchmarkReport  # noqa: PLC0415
    from optimum_benchmark.trackers.latency import LatencySessionTracker  # type: ignore[import-not-found]  # noqa: PLC0415

    # Only this process: the launcher's parent waits for it in a busy loop and had better be somewhere else.
    os.sched_setaffinity(0, {cpu})
    call = make_call(model, feeds, delay_share)
    for _ in range(WARMUP):
        call()
    tracker = LatencySessionTracker(device="cpu", backend="onnxruntime")
    with tracker.session():
        while tracker.elapsed() < seconds or tracker.count() < ITERATIONS:
            with tracker.track():
                call()
    report = BenchmarkReport.from_list(["forward"])
    report.forward.latency = tracker.get_latency()
    return report


def main() -> None:
    """Serve until standard input ends; libraries may print, to standard error."""
    from optimum_benchmark.launchers.process.config import ProcessConfig  # type: ignore[import-not-found]  # noqa: PLC0415
    from optimum_benchmark.launchers.process.launcher import ProcessLauncher  # type: ignore[import-not-found]  # noqa: PLC0415

    launcher = ProcessLauncher(ProcessConfig(start_method="fork"))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        arguments = [asked[name] for name in ("model", "feeds", "delay_share", "seconds", "cpu")]
        latency = launcher.launch(worker=measure, worker_args=arguments).forward.latency
        answers.write(json.dumps({"p50": latency.p50, "p95": latency.p95, "p99": latency.p99, "count": latency.count}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
