"""Smoothing on graphs written as ONNX text: every float result stays the same to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from liftgate.core.errors import RefusedStep
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import SmoothActivations

from .real_requests import with_requests
from .step_context import score, weights

# What the second layer reads: columns up to 16 and 1 for inputs in [0, 1], with weights of 1 and 1.
MLP = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score)
<float[2,2] w1 = {16, 0, 0, 1}, float[2] b1 = {0, 0}, float[2,1] w2 = {1, 1}>
{
    h = MatMul(x, w1)
    s = Add(h, b1)
    a = Relu(s)
    score = MatMul(a, w2)
}
"""
GEMM = MLP.replace("h = MatMul(x, w1)\n    s = Add(h, b1)", "s = Gemm<transB = 1, alpha = 2.0>(x, w1, b1)")
NORM = """
<ir_version: 10, opset_import: ["" : 20]>
norm (float[rows,2] x) => (float[rows,1] score)
<float[2] g = {16, 1}, float[2] b = {0.5, 0.25}, float[2,2] q = {1, 0.5, 0.25, 1}, float[2,1] top = {1, 1}>
{
    n = LayerNormalization<axis = -1>(x, g, b)
    one = MatMul(n, q)
    two = MatMul(n, q)
    both = Mul(one, two)
    score = MatMul(both, top)
}
"""
GELU = MLP.replace("Relu", "Gelu")
SEEN_TWICE = MLP.replace(
    "score = MatMul(a, w2)", "m = MatMul(a, w2)\n    r = ReduceMax<keepdims = 1>(a, axis)\n    score = Add(m, r)"
).replace("float[2,1] w2", "int64[1] axis = {1}, float[2,1] w2")
TABLES = """
<ir_version: 10, opset_import: ["" : 20]>
tables (int64[rows,2] ids) => (float[rows,1] score)
<float[3,2] user = {16, 1, 8, -1, 4, 1}, float[3,2] item = {1, 2, 3, 4, 5, 6}, float[4,1] w = {1, 1, 1, 1},
 int64 zero = {0}, int64 one = {1}>
{
    u = Gather<axis = 1>(ids, zero)
    i = Gather<axis = 1>(ids, one)
    users = Gather(user, u)
    items = Gather(item, i)
    again = Gather(item, u)
    mixed = Add(items, again)
    both = Concat<axis = 1>(users, mixed)
    score = MatMul(both, w)
}
"""


def rows(count: int = 60) -> list[np.ndarray]:
    return [np.random.default_rng(i).random((4, 2)).astype(np.float32) for i in range(count)]


@pytest.mark.parametrize("text", [MLP, GEMM, NORM])
def test_results_are_the_same_to_the_last_bit(tmp_path: Path, text: str) -> None:
    record, _ = run_step(SmoothActivations(), with_requests(text, tmp_path, rows()))
    x = np.concatenate(rows())
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": x}), score(tmp_path / "in.onnx", {"x": x}))
    assert record.numbers["columns_scaled"] == 2.0


def test_scales_by_hand(tmp_path: Path) -> None:
    context = with_requests(MLP, tmp_path, [np.ones((1, 2), dtype=np.float32)] * 60)
    run_step(SmoothActivations(alpha=0.5), context)
    after = weights(tmp_path / "out.onnx")
    # sqrt(16 / 1) = 4 and sqrt(1 / 1) = 1, over their geometric mean 2: 2 and 1/2.
    found = {tuple(array.reshape(-1).tolist()) for array in after.values()}
    assert found == {(8.0, 0.0, 0.0, 2.0), (0.0, 0.0), (2.0, 0.5)}


def test_a_table_is_scaled_only_where_one_layer_alone_reads_it(tmp_path: Path) -> None:
    ids = [np.array([[0, 1], [1, 2], [2, 0]])] * 60
    run_step(SmoothActivations(), with_requests(TABLES, tmp_path, ids, name="ids"))
    after = weights(tmp_path / "out.onnx")
    # Columns of users: 16 and 1, sqrt 4 and 1, over their mean 2. The item table is read twice and stays.
    assert [a.reshape(-1).tolist() for n, a in after.items() if n.startswith("user")] == [[8, 2, 4, -2, 2, 2]]
    assert after["item"].reshape(-1).tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"ids": ids[0]}), score(tmp_path / "in.onnx", {"ids": ids[0]}))
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"ids": np.array([[3, 0]])})


@pytest.mark.parametrize("text", [GELU, SEEN_TWICE])
def test_where_scales_cannot_be_folded_the_step_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(RefusedStep, match="no linear layer reads, alone, what another linear layer"):
        run_step(SmoothActivations(), with_requests(text, tmp_path, rows()))
    assert not (tmp_path / "out.onnx").exists()


def test_columns_that_are_even_already_are_left_alone(tmp_path: Path) -> None:
    even = MLP.replace("16, 0, 0, 1", "1, 0, 0, 1")
    with pytest.raises(RefusedStep, match="are even already"):
        run_step(SmoothActivations(), with_requests(even, tmp_path, [np.ones((1, 2), dtype=np.float32)] * 60))


def test_too_few_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="12 requests are too few"):
        run_step(SmoothActivations(), with_requests(MLP, tmp_path, rows(12)))


def test_a_weight_that_another_node_reads_stays_whole_there(tmp_path: Path) -> None:
    shared = MLP.replace(
        "score = MatMul(a, w2)", "m = MatMul(a, w2)\n    other = MatMul(x, w1)\n    o = MatMul(other, w2)\n    score = Add(m, o)"
    )
    run_step(SmoothActivations(), with_requests(shared, tmp_path, rows()))
    x = np.concatenate(rows())
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": x}), score(tmp_path / "in.onnx", {"x": x}))
