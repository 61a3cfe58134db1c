"""Weights in 8 and 4 bits, for memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import QuantizeWeights

from .step_context import context_of, score, weights

# 33 inputs: more than one block of 32, and not a whole number of them.
WIDE = """
<ir_version: 10, opset_import: ["" : 20]>
wide (float[rows,33] x) => (float[rows,64] score)
{
    [first] hidden = Gemm<transB = 1, alpha = 0.5, beta = 2.0>(x, w1, b1)
    active = Relu(hidden)
    [second] product = MatMul(active, w2)
    score = Add(product, b2)
}
"""
X = np.random.default_rng(0).standard_normal((5, 33)).astype(np.float32)


def wide(tmp_path: Path, text: str = WIDE) -> Path:
    random = np.random.default_rng(1)
    model = onnx.parser.parse_model(text)
    shapes = {"w1": (48, 33), "b1": (48,), "w2": (48, 64), "b2": (64,)}
    for name, shape in shapes.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name))
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"


@pytest.mark.parametrize(("bits", "error"), [(8, 0.01), (4, 0.15)])
def test_gemm_with_everything_and_matmul_are_packed(tmp_path: Path, bits: int, error: float) -> None:
    context = context_of(WIDE, tmp_path, {"x": X})
    wide(tmp_path)
    expected = score(tmp_path / "in.onnx", {"x": X})
    record, _ = run_step(QuantizeWeights(bits=bits), context)  # type: ignore[arg-type]  # 8 or 4
    found = score(tmp_path / "out.onnx", {"x": X})
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < error
    assert "weights of 2 of 2 MatMul/Gemm" in record.summary
    # 33 and 48 inputs fill two blocks of 32 each; a block of a column is 32 * bits / 8 bytes and a scale of 4.
    assert record.numbers["weight_bytes_after"] == 2 * (48 + 64) * (32 * bits / 8 + 4)
    assert record.numbers["weight_bytes_before"] == (33 * 48 + 48 * 64) * 4
    assert not {"w1", "w2"} & set(weights(tmp_path / "out.onnx"))


def test_a_weight_that_two_nodes_read_is_left_alone(tmp_path: Path) -> None:
    text = WIDE.replace(
        "product = MatMul(active, w2)", "one = MatMul(active, w2)\n    two = MatMul(active, w2)\n    product = Add(one, two)"
    )
    context = context_of(WIDE, tmp_path, {"x": X})
    wide(tmp_path, text)
    record, _ = run_step(QuantizeWeights(), context)
    assert "left alone, weight read by other nodes too: second, MatMul_1" in record.summary
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"x": X}), score(tmp_path / "in.onnx", {"x": X}), atol=1.0)


def test_scales_that_outweigh_what_is_saved_are_refused(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    narrow (float[rows,2] x) => (float[rows,1] score)
    <float[2,1] w = {1, 2}> { [only] score = MatMul(x, w) }
    """
    with pytest.raises(RefusedStep, match="8 bytes of weights would become 36 with the scales"):
        run_step(QuantizeWeights(), context_of(text, tmp_path, {"x": X[:, :2]}))
    assert not (tmp_path / "out.onnx").exists()


def test_the_table_stays_and_an_unknown_node_is_an_error(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    lookup (int64[rows] item) => (float[rows,32] score)
    { row = Gather(table, item) [top] score = MatMul(row, w) }
    """
    context = context_of(text, tmp_path, {"item": np.array([0, 1, 2])})
    model = onnx.load(tmp_path / "in.onnx")
    table = np.random.default_rng(0).standard_normal((3, 32)).astype(np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in {"table": table, "w": np.eye(32, dtype=np.float32)}.items()
    )
    onnx.save(model, tmp_path / "in.onnx")
    run_step(QuantizeWeights(bits=4), context)
    np.testing.assert_array_equal(weights(tmp_path / "out.onnx")["table"], table)
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"item": np.array([3])})
    with pytest.raises(UnknownName, match="unknown node 'tpo'"):
        run_step(QuantizeWeights(exclude=("tpo",)), context)
