"""Olive's own passes on the exported model."""

# The package is not in the environment that types are checked in.
# mypy: disable-error-code="import-not-found, no-untyped-call, misc"

from __future__ import annotations

from collections.abc import Sized
from pathlib import Path

import numpy as np
from olive.data.registry import Registry
from olive.workflows import run

from ..variants import Job
from . import calibration

# As `olive auto-opt` uses them on an ONNX model.
_CLEAN: dict[str, dict[str, object]] = {
    "peephole": {"type": "OnnxPeepholeOptimizer"},
    "transformers": {"type": "OrtTransformersOptimization", "opt_level": 0, "float16": False, "keep_io_types": False},
}
_OPERATORS = ["MatMul", "Gemm"]
_QUANTIZED = {"op_types_to_quantize": _OPERATORS, "per_channel": True, "reduce_range": True, "quant_preprocess": True}


class _Requests(Sized):
    """Validation requests as Olive's data loader takes them: inputs and a label nobody reads."""

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds

    def __len__(self) -> int:
        return len(self._feeds)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], int]:
        return self._feeds[index], 0


def olive(job: Job) -> tuple[Path, str]:
    """`olive-fp32`: its clean-ups. `olive-dynamic`, `olive-static`: those, then Olive's quantization of MatMul and Gemm."""
    passes: dict[str, dict[str, object]] = {name: dict(step) for name, step in _CLEAN.items()}
    configuration: dict[str, object] = {
        "input_model": {"type": "ONNXModel", "model_path": str(job.base / "model.onnx")},
        "passes": passes,
        "output_dir": str(job.folder / "out"),
        "cache_dir": str(job.folder / "cache"),
        "systems": {"here": {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}},
        "host": "here",
        "target": "here",
        "evaluate_input_model": False,
    }
    if job.variant == "olive-dynamic":
        passes["quantize"] = {"type": "OnnxDynamicQuantization", **_QUANTIZED}
    elif job.variant == "olive-static":
        Registry.register_dataset("requests")(lambda **_: _Requests(list(calibration.feeds(job))))
        Registry.register_dataloader("as_they_are")(lambda dataset, **_: dataset)
        data = {
            "name": "validation",
            "type": "DataContainer",
            "load_dataset_config": {"type": "requests"},
            "pre_process_data_config": {"type": "skip_pre_process"},
            "post_process_data_config": {"type": "skip_post_process"},
            "dataloader_config": {"type": "as_they_are"},
        }
        configuration["data_configs"] = [data]
        passes["quantize"] = {
            "type": "OnnxStaticQuantization",
            "data_config": "validation",
            "activation_type": "uint8",
            "precision": "int8",
            **_QUANTIZED,
        }
    settings = ", ".join(str(step["type"]) for step in passes.values())
    run(configuration)
    found = sorted((job.folder / "out").rglob("*.onnx"))
    if not found:
        raise RuntimeError("Olive wrote no model")
    return found[0], settings
