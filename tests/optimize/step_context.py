"""What a step's function gets, for a model written as ONNX text, and a look at what it wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.optimize.context import StepContext
from liftgate.optimize.samples import Samples


def context_of(text: str, folder: Path, pool: dict[str, np.ndarray], *, calibrated: bool = False) -> StepContext:
    onnx.save(onnx.parser.parse_model(text), folder / "in.onnx")
    name, array = next(iter(pool.items()))
    shape = ("rows", *array.shape[1:])
    signature = Signature(
        inputs=(InputSpec(name=name, dtype=str(array.dtype), shape=shape, role="candidate"),),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
    )
    return StepContext(
        where="model",
        source=folder / "in.onnx",
        target=folder / "out.onnx",
        signature=signature,
        samples=Samples(pool=pool, note="by hand"),
        calibrated=calibrated,
    )


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def score(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0])
