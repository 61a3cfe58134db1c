"""Scattered zeros, and the warning that comes with them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from liftgate.core.errors import RefusedStep
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Sparsify

from .calibrated import calibrated, numbers

TEXT = """(float[rows,4] x) => (float[rows,1] score) <float[4,1] w = {4, 3, 2, 1}> { score = MatMul(x, w) }"""


def kept(path: Path) -> list[float]:
    [tensor] = onnx.load(path).graph.initializer
    return [float(value) for value in onnx.numpy_helper.to_array(tensor).reshape(-1)]


def test_inputs_that_are_large_count_for_more(tmp_path: Path) -> None:
    # Inputs of about 1, 1, 1 and 10: products 4, 3, 2 and 10.
    x = numbers(20, 4, 4, low=1.0) * 0.01 + np.array([1, 1, 1, 10], dtype=np.float32)
    context = calibrated(TEXT, tmp_path, {"x": x})
    record, _ = run_step(Sparsify(share=0.5), context)
    assert kept(context.target) == [4.0, 0.0, 0.0, 1.0]
    assert record.numbers == {"weights_zero": 2.0, "weights_total": 4.0}
    assert "ONNX Runtime gains nothing from it" in record.summary


def test_without_requests_magnitude_decides(tmp_path: Path) -> None:
    context = calibrated(TEXT, tmp_path, {"x": numbers(4, 4, 4)})
    run_step(Sparsify(share=0.5), msgspec.structs.replace(context, calibrated=False, requests=None))
    assert kept(context.target) == [4.0, 3.0, 0.0, 0.0]


def test_a_model_without_linear_layers_is_refused(tmp_path: Path) -> None:
    context = calibrated("(float[rows,1] x) => (float[rows,1] score) { score = Relu(x) }", tmp_path, {"x": numbers(4, 4, 1)})
    with pytest.raises(RefusedStep, match="no MatMul or Gemm with a constant weight"):
        run_step(Sparsify(share=0.5), context)
