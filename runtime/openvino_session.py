"""OpenVINO behind the Session protocol; an extra (`pip install 'liftgate[openvino]'`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino as ov

from ..core.artifact import ModelRef
from ..core.errors import InputError
from ..core.ids import wrong_id
from ..core.session_defaults import Precision
from ..core.signature import Signature
from .layout import request_inputs, run_either
from .session import SessionSettings


class OpenVinoSession:
    """A model in OpenVINO on CPU; one thread at a time may call `run`.

    OpenVINO's Gather answers an id outside its table with zeros, where ONNX Runtime raises, so ids whose table is known are checked on
    every run. A model in layout `request` also takes the rows of any number of requests, as in OnnxSession.
    """

    def __init__(self, compiled: ov.CompiledModel, signature: Signature, ref: ModelRef) -> None:
        self._request = compiled.create_infer_request()
        self._signature = signature
        self._ref = ref
        self._outputs = [o.name for o in signature.outputs]
        self._once = request_inputs(signature)
        self._ids = [spec for spec in signature.inputs if spec.holds_ids]

    @property
    def ref(self) -> ModelRef:
        return self._ref

    @property
    def signature(self) -> Signature:
        return self._signature

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return run_either(self._run, feeds, self._once)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for spec in self._ids:
            wrong = wrong_id(spec, feeds[spec.name])
            if wrong is not None:
                raise InputError.mismatch(f"{self._ref.name}: input '{spec.name}'{wrong.place}", expected=wrong.expected, found=wrong.found)
        found = self._request.infer(dict(feeds))
        # Copies: the next request writes into the same memory.
        return {name: np.array(found[name]) for name in self._outputs}


def load_openvino(path: Path, settings: SessionSettings, precision: Precision = "f32") -> ov.CompiledModel:
    """A compiled CPU model; raises InputError with OpenVINO's own reason when it refuses the file.

    Left alone OpenVINO computes in bfloat16 or float16 where the CPU can, and pins its threads to cores that others may use.
    """
    if settings.device != "cpu":
        fix = 'export the artifact without [session] runtime = "openvino", or measure on an instance without a GPU'
        raise InputError.mismatch(str(path), expected="a runtime that uses NVIDIA's GPUs", found="OpenVINO", fix=fix)
    options: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": settings.thread_count,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    if precision == "f32":
        options["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        return ov.Core().compile_model(path, "CPU", options)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(str(path), f"OpenVINO cannot load it: {reason[:300]}", fix="run it in ONNX Runtime") from error
