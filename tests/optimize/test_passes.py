"""Techniques on graphs written as ONNX text, with numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Prune, QuantizeDynamic

from .step_context import context_of, score, weights

# Four hidden units. Outgoing norms 1, 10, 2, 0.5; incoming norms (with bias) 1, 1, 5 (3, 4), 1.
MLP = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score)
<float[2,4] w1 = {1, 0, 3, 0,  0, 1, 4, 0}, float[4] b1 = {0, 0, 0, 1}, float[4,1] w2 = {1, 10, 2, 0.5}>
{
    hidden = MatMul(x, w1)
    biased = Add(hidden, b1)
    active = Relu(biased)
    score = MatMul(active, w2)
}
"""

# The same as torch.onnx writes it: Gemm with transB, and SiLU as x * sigmoid(x), which uses the hidden tensor twice.
GEMM_SILU = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score)
<float[4,2] w1 = {1, 0,  0, 1,  3, 4,  0, 0}, float[4] b1 = {0, 0, 0, 1}, float[1,4] w2 = {1, 10, 2, 0.5}, float[1] b2 = {7}>
{
    hidden = Gemm<transB = 1>(x, w1, b1)
    gate = Sigmoid(hidden)
    active = Mul(hidden, gate)
    score = Gemm<transB = 1>(active, w2, b2)
}
"""

RESIDUAL = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,2] score)
<float[2,2] w1 = {1, 0, 0, 1}, float[2,2] w2 = {1, 0, 0, 1}>
{
    hidden = MatMul(x, w1)
    both = Add(hidden, x)
    score = MatMul(both, w2)
}
"""

SOFTMAX = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score)
<float[2,4] w1 = {1, 0, 3, 0,  0, 1, 4, 0}, float[4,1] w2 = {1, 10, 2, 0.5}>
{
    hidden = MatMul(x, w1)
    share = Softmax<axis = -1>(hidden)
    score = MatMul(share, w2)
}
"""

ATTENTION_ONLY = """
<ir_version: 10, opset_import: ["" : 20]>
attention (float[rows,2] x) => (float[rows,rows] score)
{
    other = Transpose<perm = [1, 0]>(x)
    [pairs] score = MatMul(x, other)
}
"""

LOOKUP = """
<ir_version: 10, opset_import: ["" : 20]>
lookup (int64[rows] item) => (float[rows,1] score)
<float[3,2] table = {1, 2, 3, 4, 5, 6}, float[2,1] w = {0.5, -1.25}>
{
    row = Gather(table, item)
    [top] score = MatMul(row, w)
}
"""


X = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)


def test_the_two_units_with_the_largest_products_of_norms_stay(tmp_path: Path) -> None:
    record, _ = run_step(Prune(keep=0.5, multiple_of=1), context_of(MLP, tmp_path, {"x": X}))
    found = {tuple(a.reshape(-1)) for a in weights(tmp_path / "out.onnx").values()}
    # Importance 1, 10, 10 and 0.5: units 1 and 2 stay.
    assert found == {(0.0, 3.0, 1.0, 4.0), (0.0, 0.0), (10.0, 2.0)}
    # 256 candidates: 2 (2*4 + 4*1) + 4 for the bias + 4 for Relu are 32 each, half of that with two units.
    expected = {"units_before": 4.0, "units_after": 2.0, "weights_removed": 8.0, "flops_before": 8192.0, "flops_after": 4096.0}
    assert record.numbers == expected
    # Row [1, 0]: 0*10 + 3*2; row [0, 1]: 1*10 + 4*2.
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": X}), [[6.0], [18.0]])


def test_with_real_requests_a_unit_that_never_fires_goes_first(tmp_path: Path) -> None:
    rows = np.array([[1.0, -1.0]], dtype=np.float32)
    # Activations 1, 0, 0 (3 - 4 < 0), 1 times outgoing norms 1, 10, 2, 0.5: units 0 and 3 stay.
    run_step(Prune(keep=0.5, multiple_of=1, refit=False), context_of(MLP, tmp_path, {"x": rows}, calibrated=True))
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": rows}), score(tmp_path / "in.onnx", {"x": rows}))


def test_gemm_with_transposed_weights_and_silu_is_pruned_too(tmp_path: Path) -> None:
    run_step(Prune(keep=0.5, multiple_of=1), context_of(GEMM_SILU, tmp_path, {"x": X}))
    shapes = sorted(a.shape for a in weights(tmp_path / "out.onnx").values())
    assert shapes == [(1,), (1, 2), (2,), (2, 2)]

    def silu(v: float) -> float:
        return float(v / (1 + np.exp(-v)))

    expected = [[7 + 10 * silu(0) + 2 * silu(3)], [7 + 10 * silu(1) + 2 * silu(4)]]
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"x": X}), expected, rtol=1e-6)


def test_units_kept_are_rounded_up_to_the_multiple(tmp_path: Path) -> None:
    record, _ = run_step(Prune(keep=0.3, multiple_of=3), context_of(MLP, tmp_path, {"x": X}))
    assert record.numbers["units_after"] == 3.0


def test_rounding_that_keeps_every_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="rounded up to multiples of 8 keeps every unit"):
        run_step(Prune(keep=0.5), context_of(MLP, tmp_path, {"x": X}))
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("text", [RESIDUAL, SOFTMAX])
def test_units_that_something_else_reads_are_not_pruned(tmp_path: Path, text: str) -> None:
    with pytest.raises(RefusedStep, match="no linear layer is followed by"):
        run_step(Prune(keep=0.5, multiple_of=1), context_of(text, tmp_path, {"x": X}))
    assert not (tmp_path / "out.onnx").exists()


def test_a_weight_shared_with_another_node_stays_whole_there(tmp_path: Path) -> None:
    shared = MLP.replace("=> (float[rows,1] score)", "=> (float[rows,1] score, float[1,2] tied)").replace(
        "    score = MatMul(active, w2)\n", "    score = MatMul(active, w2)\n    turned = Transpose(w2)\n    tied = MatMul(turned, head)\n"
    )
    shared = shared.replace("float[4,1] w2 =", "float[4,2] head = {1, 1, 1, 1, 1, 1, 1, 1}, float[4,1] w2 =")
    run_step(Prune(keep=0.5, multiple_of=1), context_of(shared, tmp_path, {"x": X}))
    session = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(["tied"], {"x": X})[0], [[13.5, 13.5]])


def test_int8_weights_leave_the_table_alone_and_name_their_node(tmp_path: Path) -> None:
    items = {"item": np.array([0, 1, 2])}
    record, _ = run_step(QuantizeDynamic(), context_of(LOOKUP, tmp_path, items))
    after = weights(tmp_path / "out.onnx")
    np.testing.assert_array_equal(after["table"], [[1, 2], [3, 4], [5, 6]])
    [matrix] = [a for a in after.values() if a.dtype == np.int8 and a.shape == (2, 1)]
    # 7 bits: the largest weight becomes 64, the other 64 * 0.5 / 1.25 = 25.6.
    assert matrix.reshape(-1).tolist() in ([26, -64], [25, -63])
    assert "1 of 1 MatMul/Gemm in int8 (top)" in record.summary
    np.testing.assert_allclose(score(tmp_path / "out.onnx", items), [[-2.0], [-3.5], [-5.0]], atol=0.08)


def test_a_product_of_two_activations_has_no_weight_to_quantize(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="node 'pairs' has no constant weight"):
        run_step(QuantizeDynamic(), context_of(ATTENTION_ONLY, tmp_path, {"x": X}))


def test_excluding_the_only_node_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="no MatMul or Gemm left"):
        run_step(QuantizeDynamic(exclude=("top",)), context_of(LOOKUP, tmp_path, {"item": np.array([0])}))


def test_an_excluded_node_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown node 'tpo'; did you mean 'top'\?"):
        run_step(QuantizeDynamic(exclude=("tpo",)), context_of(LOOKUP, tmp_path, {"item": np.array([0])}))


def test_an_excluded_gemm_stays_in_float_although_the_tool_renames_it(tmp_path: Path) -> None:
    named = GEMM_SILU.replace("hidden = Gemm", "[first] hidden = Gemm").replace("score = Gemm", "[second] score = Gemm")
    record, _ = run_step(QuantizeDynamic(exclude=("first",)), context_of(named, tmp_path, {"x": X}))
    assert "1 of 2 MatMul/Gemm in int8 (second)" in record.summary
    assert sum(node.op_type == "MatMulInteger" for node in onnx.load(tmp_path / "out.onnx").graph.node) == 1


UNNAMED = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score)
<float[2,2] w1 = {1, 0, 0, 1}, float[2,1] w2 = {0.5, -1.25}>
{
    hidden = MatMul(x, w1)
    active = Relu(hidden)
    other = Transpose<perm = [1, 0]>(active)
    pairs = MatMul(active, other)
    mixed = MatMul(pairs, active)
    score = MatMul(mixed, w2)
}
"""


@pytest.mark.parametrize(("name", "done"), [("", "MatMul_1, MatMul_4"), ("[same] ", "same, same_3")])
def test_nodes_without_a_name_of_their_own_are_told_apart(tmp_path: Path, name: str, done: str) -> None:
    text = UNNAMED
    for tensor in ("hidden", "pairs", "mixed", "score"):
        text = text.replace(f"    {tensor} =", f"    {name}{tensor} =")
    record, _ = run_step(QuantizeDynamic(), context_of(text, tmp_path, {"x": X}))
    assert f"2 of 4 MatMul/Gemm in int8 ({done})" in record.summary
    assert sum(node.op_type == "MatMulInteger" for node in onnx.load(tmp_path / "out.onnx").graph.node) == 2
