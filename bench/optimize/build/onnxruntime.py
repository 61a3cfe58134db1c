"""ONNX Runtime's own quantization tools, as its documentation recommends for CPUs without VNNI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnxruntime import quantization

from ..variants import Job
from . import calibration

# Left alone the tools quantize embedding tables per tensor, which costs a recommender its ranking.
OPERATORS = ("MatMul", "Gemm")


def dynamic(job: Job) -> tuple[Path, str]:
    """Per-channel 7-bit weights for every MatMul and Gemm."""
    target = job.folder / "model.onnx"
    quantization.quantize_dynamic(
        _prepared(job),
        target,
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        reduce_range=True,
        weight_type=quantization.QuantType.QInt8,
    )
    return target, "quant_pre_process; MatMul and Gemm, per channel, reduce_range"


def static(job: Job) -> tuple[Path, str]:
    """Q/DQ around every MatMul and Gemm, ranges from validation requests."""
    target = job.folder / "model.onnx"
    quantization.quantize_static(
        _prepared(job),
        target,
        Reader(calibration.feeds(job)),
        op_types_to_quantize=list(OPERATORS),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )
    settings = f"quant_pre_process; Q/DQ U8S8, MatMul and Gemm, per channel, reduce_range, minmax of {calibration.REQUESTS} requests"
    return target, settings


class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Requests as ONNX Runtime's calibration takes them."""

    def __init__(self, feeds: Iterator[dict[str, np.ndarray]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next request's inputs; None at the end."""
        return next(self._feeds, None)


def _prepared(job: Job) -> Path:
    """The model after `quant_pre_process`; as it is where that cannot read it (symbolic shape inference gives up on some graphs)."""
    source, target = job.base / "model.onnx", job.folder / "prepared.onnx"
    try:
        quantization.quant_pre_process(source, target)
    except Exception:
        quantization.quant_pre_process(source, target, skip_symbolic_shape=True)
    return target
