"""NNCF's post-training quantization of the OpenVINO model."""

# The packages are not in the environment that types are checked in.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from pathlib import Path

import nncf as tool
import openvino

from ..variants import Job
from . import calibration


def nncf(job: Job) -> tuple[Path, str]:
    """`nncf.quantize` with its defaults."""
    model = openvino.Core().read_model(job.base / "model.onnx")
    dataset = tool.Dataset(list(calibration.feeds(job)))
    quantized = tool.quantize(model, dataset, subset_size=calibration.REQUESTS)
    target = job.folder / "model.xml"
    openvino.save_model(quantized, target, compress_to_fp16=False)
    return target, f"nncf.quantize, its defaults, {calibration.REQUESTS} requests"
