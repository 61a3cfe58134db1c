"""Layers that become two thin ones, and those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from liftgate.core.errors import InputError, RefusedStep, UnknownName
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import LowRank

from .calibrated import CANDIDATES, calibrated, numbers, scores, shapes

REQUESTS, WIDTH = 60, 24
WIDE = """(float[rows,24] x) => (float[rows,24] score)
<float[24,24] w = {}, float[24] b = {}> { h = Gemm<transB = 1>(x, w, b)  score = Relu(h) }"""


def columns() -> dict[str, np.ndarray]:
    return {"x": numbers(REQUESTS, CANDIDATES, WIDTH, low=-0.5)}


def of_rank(rank: int) -> np.ndarray:
    return np.asarray(numbers(WIDTH, rank, seed=1, low=-0.5) @ numbers(rank, WIDTH, seed=2, low=-0.5))


def test_a_matrix_of_rank_three_becomes_two_thin_ones(tmp_path: Path) -> None:
    bias = numbers(WIDTH, seed=3)
    context = calibrated(WIDE, tmp_path, columns(), weights={"w": of_rank(3), "b": bias})
    record, _ = run_step(LowRank(max_error=0.01, multiple_of=1), context)
    model = onnx.load(context.target)
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Gemm", "Relu"]
    assert shapes(context.target) == {"h_directions": (24, 3), "w": (24, 3), "b": (24,)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), atol=1e-3)
    # 256 candidates: 2 * 24 * 24 and a bias and a Relu of 24 each; then 2 * 24 * 3 twice.
    numbers_found = dict(record.numbers)
    assert numbers_found.pop("score_error") < 0.01
    assert numbers_found == {"layers_factorised": 1.0, "flops_before": 256.0 * (1152 + 48), "flops_after": 256.0 * (288 + 48)}
    assert "w 24 x 24 -> rank 3" in record.summary


def test_directions_that_requests_never_take_cost_no_rank(tmp_path: Path) -> None:
    # A matrix of full rank, but rows that only ever point in two directions.
    rows = np.einsum("nck,kd->ncd", numbers(REQUESTS, CANDIDATES, 2, low=-0.5), numbers(2, WIDTH, seed=4, low=-0.5))
    weight = numbers(WIDTH, WIDTH, seed=1, low=-0.5)
    context = calibrated(WIDE, tmp_path, {"x": rows}, weights={"w": weight, "b": np.zeros(WIDTH)})
    run_step(LowRank(max_error=0.01, multiple_of=1), context)
    assert shapes(context.target)["w"] == (24, 2)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), atol=1e-2)


def test_a_rank_that_saves_too_little_is_refused_with_the_error(tmp_path: Path) -> None:
    context = calibrated(WIDE, tmp_path, columns(), weights={"w": np.eye(WIDTH), "b": np.zeros(WIDTH)})
    # 24 * 24 / (24 + 24) = 12, of which a quarter has to be saved: rank 9 at most.
    # That loses 15 of 24 equal directions: sqrt(15 / 24) = 0.79.
    with pytest.raises(RefusedStep, match=r"w 24 x 24 has error 0.[78]\d* at rank 9, over 0.1"):
        run_step(LowRank(max_error=0.1, multiple_of=1), context)
    assert not context.target.exists()


def test_a_layer_that_two_others_share_a_weight_with_is_split_alone(tmp_path: Path) -> None:
    text = """(float[rows,24] x) => (float[rows,24] score)
    <float[24,24] w = {}> { h = MatMul(x, w)  a = Sigmoid(h)  score = MatMul(a, w) }"""
    context = calibrated(text, tmp_path, columns(), weights={"w": of_rank(2)})
    run_step(LowRank(max_error=0.05, multiple_of=1), context)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), atol=0.05)


def test_too_few_rows_are_refused_with_the_numbers(tmp_path: Path) -> None:
    context = calibrated(WIDE, tmp_path, {"x": numbers(12, 2, WIDTH)}, weights={"w": of_rank(3), "b": np.zeros(WIDTH)})
    with pytest.raises(RefusedStep, match="w has 18 different rows for 24 inputs, 72 are needed"):
        run_step(LowRank(max_error=0.1, multiple_of=1), context)


def test_a_layer_that_does_not_exist_cannot_be_excluded(tmp_path: Path) -> None:
    context = calibrated(WIDE, tmp_path, columns(), weights={"w": of_rank(3), "b": np.zeros(WIDTH)})
    with pytest.raises(UnknownName, match=r"unknown layer 'v'"):
        run_step(LowRank(max_error=0.1, exclude=("v",)), context)
    with pytest.raises(RefusedStep, match="no layer is large enough"):
        run_step(LowRank(max_error=0.1, multiple_of=1, exclude=("w",)), context)


def test_an_error_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="expected a share between 0 and 1, found 0"):
        LowRank(max_error=0.0)
