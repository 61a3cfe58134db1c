"""Half precision: ids keep their values, types stay, CPUs are refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.parser
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.core.machine import this_machine
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import ToHalf

from .step_context import context_of, score, weights

# A matrix that carries an id in its first column, as DeepCTR's models take it; row 2049 of the table is the only one with a 1.
MIXED = """
<ir_version: 10, opset_import: ["" : 20]>
mixed (float[rows,3] x) => (float[rows,1] score)
<int64 zero = {0}, int64[1] first = {1}, int64[1] last = {3}, int64[1] axis = {1}, float[2,1] w = {2, -1}, float pad = {2049}>
{
    column = Gather<axis = 1>(x, zero)
    id = Cast<to = 7>(column)
    row = Gather(table, id)
    is_pad = Equal(column, pad)
    mask = Cast<to = 1>(is_pad)
    masks = Unsqueeze(mask, axis)
    dense = Slice(x, first, last, axis)
    [top] linear = MatMul(dense, w)
    both = Add(linear, row)
    score = Add(both, masks)
}
"""
X = np.array([[2048, 0.5, 1], [2049, 0.25, 1], [2050, 1, 1]], dtype=np.float32)


def mixed(tmp_path: Path) -> None:
    table = np.zeros((2051, 1), dtype=np.float32)
    table[2049] = 1
    model = onnx.parser.parse_model(MIXED)
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    onnx.save(model, tmp_path / "in.onnx")


def test_ids_between_other_numbers_stay_exact(tmp_path: Path) -> None:
    context = context_of(MIXED, tmp_path, {"x": X})
    mixed(tmp_path)
    record, _ = run_step(ToHalf(runs_on="gpu"), context)
    # 2 * 0.5 - 1, 2 * 0.25 - 1 + 1 + 1, 2 * 1 - 1: all exact in half precision, but the id 2049 is not.
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": X}), [[0], [1.5], [1]])
    np.testing.assert_array_equal(score(tmp_path / "in.onnx", {"x": X}), [[0], [1.5], [1]])
    assert record.numbers["exact_nodes"] == 3.0
    assert weights(tmp_path / "out.onnx")["table"].dtype == np.float16
    assert weights(tmp_path / "out.onnx")["w"].dtype == np.float16
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"x": np.array([[2051, 0, 0]], dtype=np.float32)})


def test_inputs_and_outputs_keep_their_types(tmp_path: Path) -> None:
    context = context_of(MIXED, tmp_path, {"x": X})
    mixed(tmp_path)
    run_step(ToHalf(runs_on="gpu"), context)
    graph = onnx.load(tmp_path / "out.onnx").graph
    assert [(v.name, v.type.tensor_type.elem_type) for v in [*graph.input, *graph.output]] == [("x", 1), ("score", 1)]


def test_an_x86_cpu_is_refused_with_the_reason(tmp_path: Path) -> None:
    if "x86" not in this_machine().system:
        pytest.skip("this CPU has half-precision kernels")
    context = context_of(MIXED, tmp_path, {"x": X})
    with pytest.raises(RefusedStep, match="no half-precision matrix products for x86 CPUs: it converts every weight"):
        run_step(ToHalf(), context)
    assert not (tmp_path / "out.onnx").exists()


def test_a_weight_beyond_half_precision_is_named(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    large (float[rows,3] x) => (float[rows,1] score)
    <float[3,1] w = {70000, -1, 0}> { score = MatMul(x, w) }
    """
    context = context_of(text, tmp_path, {"x": X})
    with pytest.raises(RefusedStep, match=r"'w' holds 7e\+04, and fp16 ends at 65504"):
        run_step(ToHalf(runs_on="gpu"), context)


def test_bf16_that_nothing_here_can_run_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    context = context_of(MIXED, tmp_path, {"x": X})
    mixed(tmp_path)
    with pytest.raises(RefusedStep, match="cannot run it, so it cannot be checked"):
        run_step(ToHalf(number="bf16", runs_on="gpu"), context)
    assert not (tmp_path / "out.onnx").exists()


def test_a_mask_of_minus_a_billion_is_no_weight(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    masked (float[rows,2] x) => (float[rows,2] score)
    <float low = {-1000000000}, float zero = {0}, float[2,2] w = {1, 0, 0, 1}>
    { y = MatMul(x, w) seen = Greater(x, zero) m = Where(seen, y, low) score = Softmax<axis = -1>(m) }
    """
    x = np.array([[1.0, -1.0]], dtype=np.float32)
    run_step(ToHalf(runs_on="gpu"), context_of(text, tmp_path, {"x": x}))
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"x": x}), [[1, 0]])


def test_nothing_in_float_and_unknown_nodes_are_errors(tmp_path: Path) -> None:
    context = context_of(MIXED, tmp_path, {"x": X})
    mixed(tmp_path)
    with pytest.raises(UnknownName, match="unknown node 'tpo'; did you mean 'top'"):
        run_step(ToHalf(runs_on="gpu", exclude=("tpo",)), context)
    run_step(ToHalf(runs_on="gpu"), context)
    again = msgspec.structs.replace(context, source=context.target, target=tmp_path / "again.onnx")
    with pytest.raises(RefusedStep, match="has no float32 weights"):
        run_step(ToHalf(runs_on="gpu"), again)
