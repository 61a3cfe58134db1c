"""Static int8 on graphs written as ONNX text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.optimize.agreement import spearman
from liftgate.optimize.context import StepContext
from liftgate.optimize.passes.kernels import int8_kernels
from liftgate.optimize.passes.sensitivity import ranking_loss
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Calibration, QuantizeStatic

from .real_requests import with_requests
from .step_context import score, weights

# MatMul and Add, as other exporters than PyTorch's write a linear layer; a Gelu, which int8 cannot pass through.
MLP = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,4] x) => (float[rows,1] score)
<float[4,4] w1 = {1, 0.5, -0.25, 0,  0, 1, 0.5, -0.25,  -0.25, 0, 1, 0.5,  0.5, -0.25, 0, 1}, float[4] b1 = {0.1, 0.2, 0.3, 0.4},
 float[4,4] w2 = {1, 0, 0, 1,  0, 1, 1, 0,  1, -1, 0, 0,  0, 0, 1, -1}, float[4,1] w3 = {1, 0.5, -0.5, 0.25}, float[1] b3 = {3}>
{
    [first] h1 = MatMul(x, w1)
    s1 = Add(h1, b1)
    a1 = Relu(s1)
    [second] h2 = MatMul(a1, w2)
    a2 = Gelu(h2)
    [last] h3 = MatMul(a2, w3)
    score = Add(h3, b3)
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

# The request's columns are added up over a part of the graph that a sum of 1,000 dominates: int8 there leaves nothing of the candidates.
FRAGILE = """
<ir_version: 10, opset_import: ["" : 20]>
fragile (float[rows,4] x) => (float[rows,1] score)
<float[4,4] big = {1000, 0, 0, 0,  0, 1, 0, 0,  0, 0, 1, 0,  0, 0, 0, 1}, float[4,4] eye = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1},
 float[4,1] w = {0, 1, 1, 1}>
{
    [robust] y = MatMul(x, eye)
    spread = MatMul(y, big)
    [fragile] score = MatMul(spread, w)
}
"""


def requests(count: int = 64, columns: int = 4, candidates: int = 8) -> list[np.ndarray]:
    return [np.random.default_rng(i).standard_normal((candidates + i % 3, columns)).astype(np.float32) for i in range(count)]


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "entropy"])
def test_every_linear_layer_runs_in_int8_and_scores_stay_close(tmp_path: Path, calibration: Calibration) -> None:
    record, _ = run_step(QuantizeStatic(calibration=calibration, max_sensitivity=0.1), with_requests(MLP, tmp_path, requests()))
    assert record.numbers["nodes_quantized"] == 3.0
    # MatMul and Add became Gemm: ONNX Runtime would run them in float otherwise.
    assert int8_kernels(tmp_path / "out.onnx") == 3
    x = np.concatenate(requests())
    kept = spearman(score(tmp_path / "in.onnx", {"x": x})[:, 0], score(tmp_path / "out.onnx", {"x": x})[:, 0])
    assert kept is not None
    assert kept > 0.99


def test_scores_are_not_cut_into_256_steps(tmp_path: Path) -> None:
    run_step(QuantizeStatic(max_sensitivity=0.1), with_requests(MLP, tmp_path, requests()))
    x = np.random.default_rng(1).standard_normal((4000, 4)).astype(np.float32)
    assert len(np.unique(score(tmp_path / "out.onnx", {"x": x}))) > 256
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node][-1] != "DequantizeLinear"


def test_a_node_that_hurts_the_ranking_stays_in_float_and_is_named(tmp_path: Path) -> None:
    record, _ = run_step(QuantizeStatic(max_sensitivity=0.05), with_requests(FRAGILE, tmp_path, requests()))
    assert record.numbers["sensitivity fragile"] > 0.3
    assert record.numbers["sensitivity robust"] < 0.01
    assert "left in float, too sensitive: fragile (" in record.summary
    assert record.numbers["nodes_quantized"] == 2.0


def test_a_layer_before_one_in_float_still_runs_in_int8(tmp_path: Path) -> None:
    # ONNX Runtime fuses a Relu that nobody quantizes into a float product, and the Q and DQ before it are then for nothing.
    record, _ = run_step(QuantizeStatic(max_sensitivity=0.2, exclude=("second", "last")), with_requests(MLP, tmp_path, requests()))
    assert "1 of 3 MatMul/Gemm in int8 (first)" in record.summary
    assert int8_kernels(tmp_path / "out.onnx") == 1


def test_when_every_node_hurts_nothing_is_written(tmp_path: Path) -> None:
    step = QuantizeStatic(max_sensitivity=1e-9)
    with pytest.raises(RefusedStep, match=r"every node lowers the rank correlation by more than 1e-09 .*'last'"):
        run_step(step, with_requests(MLP, tmp_path, requests()))
    assert not (tmp_path / "out.onnx").exists()


def test_the_table_stays_as_it_is_and_ids_outside_it_still_fail(tmp_path: Path) -> None:
    items = [np.array([0, 1, 2, i % 3]) for i in range(60)]
    run_step(QuantizeStatic(max_sensitivity=0.5), with_requests(LOOKUP, tmp_path, items, name="item"))
    np.testing.assert_array_equal(weights(tmp_path / "out.onnx")["table"], [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"item": np.array([3])})


def test_seven_bits_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    def largest(step: QuantizeStatic) -> int:
        run_step(step, with_requests(MLP, tmp_path, requests()))
        return max(int(np.abs(a.astype(int)).max()) for a in weights(tmp_path / "out.onnx").values() if a.shape == (4, 4))

    assert largest(QuantizeStatic(max_sensitivity=0.1)) == 64
    assert largest(QuantizeStatic(max_sensitivity=0.1, format="s8")) == 127
    assert largest(QuantizeStatic(max_sensitivity=0.1, format="u8")) == 255


def test_too_few_requests_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match=r"58 requests are too few to calibrate on: 59 are needed to see, with 95 % confidence"):
        run_step(QuantizeStatic(), with_requests(MLP, tmp_path, requests(58)))


def test_generated_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match=r"the requests were generated \(drawn at random\)"):
        run_step(QuantizeStatic(), with_requests(MLP, tmp_path, requests(), note="drawn at random"))


def test_requests_that_change_on_the_way_are_refused_with_both_ranges(tmp_path: Path) -> None:
    drifting = [value * (1 if i < 32 else 3) for i, value in enumerate(requests())]
    with pytest.raises(RefusedStep, match=r"'x' is within \[-\d.*\] in the first half .* of 32 requests leave the first range"):
        run_step(QuantizeStatic(), with_requests(MLP, tmp_path, drifting))
    # The same requests in another order are alike.
    shuffled = [drifting[i] for i in np.random.default_rng(0).permutation(64)]
    run_step(QuantizeStatic(max_sensitivity=0.5), with_requests(MLP, tmp_path, shuffled))


def test_an_excluded_node_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown node 'frist'; did you mean 'first'\?"):
        run_step(QuantizeStatic(exclude=("frist",)), with_requests(MLP, tmp_path, requests()))


def test_a_sequence_model_with_attention_and_a_shared_weight(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    sequence (float[rows,5,4] x) => (float[rows,1] score)
    <float[4,4] w = {1, 0.5, -0.25, 0,  0, 1, 0.5, -0.25,  -0.25, 0, 1, 0.5,  0.5, -0.25, 0, 1}, float[4] b = {1, 2, 3, 4},
     float[4,1] top = {1, -1, 0.5, 0.25}, int64[1] axis = {1}>
    {
        [key] k = MatMul(x, w)
        kb = Add(k, b)
        [query] q = MatMul(x, w)
        kt = Transpose<perm = [0, 2, 1]>(kb)
        [attention] pairs = MatMul(q, kt)
        share = Softmax<axis = -1>(pairs)
        [mix] mixed = MatMul(share, kb)
        pooled = ReduceSum<keepdims = 0>(mixed, axis)
        [top] score = MatMul(pooled, top)
    }
    """
    values = [np.random.default_rng(i).standard_normal((6, 5, 4)).astype(np.float32) for i in range(60)]
    record, _ = run_step(QuantizeStatic(max_sensitivity=0.2), with_requests(text, tmp_path, values))
    assert "3 of 5 MatMul/Gemm in int8 (key, query, top)" in record.summary
    assert "left alone, no constant weight: attention, mix" in record.summary
    assert int8_kernels(tmp_path / "out.onnx") == 3


def test_a_model_in_layout_request_is_calibrated_request_by_request(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    split (float[1,4] user, float[rows,4] x) => (float[rows,1] score)
    <float[4,8] wu = {1, 0, 0, 0, 1, 0, 0, 0,  0, 1, 0, 0, 0, 1, 0, 0,  0, 0, 1, 0, 0, 0, 1, 0,  0, 0, 0, 1, 0, 0, 0, 1},
     float[4,8] wi = {1, 0, 0, 0, -1, 0, 0, 0,  0, 1, 0, 0, 0, -1, 0, 0,  0, 0, 1, 0, 0, 0, -1, 0,  0, 0, 0, 1, 0, 0, 0, -1},
     float[8,1] w = {1, 0.5, -0.5, 0.25, 1, 0.5, 0.25, 0.5}>
    {
        [user_part] u = MatMul(user, wu)
        [item_part] i = MatMul(x, wi)
        both = Add(u, i)
        active = Relu(both)
        [top] score = MatMul(active, w)
    }
    """
    context = _with_user(text, tmp_path)
    record, _ = run_step(QuantizeStatic(max_sensitivity=0.2), context)
    assert "user_part" in record.summary
    # ONNX Runtime would make a Gemm of item_part and the Add behind it, and compute that in float.
    assert record.numbers["int8_kernels"] == 3.0
    feeds = next(context.feeds())
    assert feeds["user"].shape == (1, 4)
    before, after = (ort.InferenceSession(context.source), ort.InferenceSession(context.target))
    np.testing.assert_allclose(after.run(None, feeds)[0], before.run(None, feeds)[0], atol=0.25)


def test_the_part_of_a_split_layer_that_adds_the_other_runs_in_int8(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    split (float[rows,4] x) => (float[rows,1] score)
    <float[4,4] w = {1, 0.5, -0.25, 0,  0, 1, 0.5, -0.25,  -0.25, 0, 1, 0.5,  0.5, -0.25, 0, 1}, float[4,1] top = {1, -1, 0.5, 0.25}>
    {
        other = Sin(x)
        [part] both = Gemm<transB = 1, alpha = 0.5>(x, w, other)
        active = Relu(both)
        [top] score = MatMul(active, top)
    }
    """
    record, _ = run_step(QuantizeStatic(max_sensitivity=0.2), with_requests(text, tmp_path, requests()))
    assert record.numbers["int8_kernels"] == 2.0
    x = np.concatenate(requests())
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"x": x}), score(tmp_path / "in.onnx", {"x": x}), atol=0.1)


def _with_user(text: str, folder: Path) -> StepContext:
    import msgspec  # noqa: PLC0415
    from liftgate.core.requests import Requests  # noqa: PLC0415
    from liftgate.core.signature import InputSpec, OutputSpec, Signature  # noqa: PLC0415

    context = with_requests(text, folder, requests(60))
    users = [np.random.default_rng(1000 + i).standard_normal(4).astype(np.float32).tolist() for i in range(60)]
    assert context.requests is not None
    signature = Signature(
        inputs=(
            InputSpec(name="user", dtype="float32", shape=(1, 4), role="request"),
            InputSpec(name="x", dtype="float32", shape=("rows", 4), role="candidate"),
        ),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
        layout="request",
    )
    found = Requests(context.requests.table.append_column("user", [users]), source="requests.parquet")
    return msgspec.structs.replace(context, requests=found, signature=signature)


def test_ranking_loss_by_hand() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: correlation 0.8; the other request is unchanged, so the mean loss is 0.1.
    first, other = np.array([1.0, 2, 3, 4]), np.array([1.0, 2])
    assert ranking_loss([first, other], [np.array([10.0, 30, 20, 40]), other]) == pytest.approx(0.1)
    # A request whose candidates are all alike after says nothing: that is a loss of everything.
    assert ranking_loss([first], [np.ones(4)]) == 1.0
    assert ranking_loss([first], [np.array([1.0, np.nan, 2, 3])]) == 1.0
    # One candidate each: judged over all rows.
    assert ranking_loss([np.array([1.0]), np.array([2.0])], [np.array([2.0]), np.array([1.0])]) == pytest.approx(2.0)
