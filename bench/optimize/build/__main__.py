"""`python -m liftgate.bench.optimize.build JOB.json`: one variant of one case, built by the tool it is named after, in its environment.

Writes `built.json` beside the job: what to load, or why the tool could not make it.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

from ..variants import Built, Job
from ..wire import decode, encode


def main(path: Path) -> None:
    job = decode(path.read_bytes(), Job)
    key, start = path.stem, time.monotonic()
    try:
        model, settings = _build(job)
        built = Built(key=key, path=model, settings=settings, seconds=time.monotonic() - start)
    except Exception as error:  # whatever a tool trips over is its result
        traceback.print_exc()
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        built = Built(key=key, path=None, settings="", seconds=time.monotonic() - start, failure=reason)
    (job.folder / "built.json").write_bytes(encode(built))


def _build(job: Job) -> tuple[Path, str]:
    # ruff: noqa: PLC0415, PLR0911 - one case per variant, and each tool is in one environment only
    match job.variant:
        case "ort-dynamic":
            from .onnxruntime import dynamic

            return dynamic(job)
        case "ort-static":
            from .onnxruntime import static

            return static(job)
        case "olive-fp32" | "olive-dynamic" | "olive-static":
            from .olive import olive

            return olive(job)
        case "nncf":
            from .nncf import nncf

            return nncf(job)
        case "inc":
            from .inc import inc

            return inc(job)
        case "eager" | "compile":
            return job.weights, "the third-party module with its trained weights"
        case "ort-fp32" | "openvino-fp32" | "openvino":
            return job.base / "model.onnx", "the exported model as it is"
        case "liftgate-search":
            from .search import searched

            return searched(job)
        case _:
            from .recipe import recipe

            return recipe(job)


main(Path(sys.argv[1]))
