"""What depends on one id alone becomes a table: the same scores, the same errors for wrong ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from liftgate.core.errors import RefusedStep
from liftgate.optimize.precompute.precompute import precompute_model
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Precompute

from .step_context import context_of, score, weights

MIB = 2**20

# An item tower: embedding, MLP, division by the length; times a user's vector.
TOWER = """
<ir_version: 10, opset_import: ["" : 20]>
towers (int64[rows] item, float[rows,2] user) => (float[rows,1] score)
<float[3,2] table = {1, 0, 0, 1, 3, 4}, float[2,2] w = {2, 0, 0, 2}, float[2] b = {0, 0}, int64[1] last = {-1}, float tiny = {1e-9}>
{
    row = Gather(table, item)
    hidden = Gemm<transB = 1>(row, w, b)
    active = Relu(hidden)
    length = ReduceL2(active, last)
    guarded = Add(length, tiny)
    unit = Div(active, guarded)
    product = Mul(unit, user)
    score = ReduceSum(product, last)
}
"""


def model_of(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def tables(model: ir.Model) -> list[np.ndarray]:
    return [value.const_value.numpy() for value in model.graph.initializers.values() if value.const_value is not None]


def test_an_item_tower_becomes_one_lookup() -> None:
    model = model_of(TOWER)
    done, _ = precompute_model(model, MIB)
    assert operators(model) == ["Gather", "Mul", "ReduceSum"]
    assert [(one.rows, one.width, one.nodes) for one in done] == [(3, 2, 6)]
    # The third row, (6, 8) after the layer, has length 10; the old table is gone.
    (table,) = [one for one in tables(model) if one.dtype == np.float32]
    np.testing.assert_allclose(table, np.array([[1, 0], [0, 1], [0.6, 0.8]]), rtol=1e-6)
    np.testing.assert_allclose(run(model, {"item": np.array([2]), "user": np.array([[5, 10]], np.float32)}), [[11]], rtol=1e-6)


@pytest.mark.parametrize("item", [3, -4])
def test_an_id_outside_its_table_still_fails(item: int) -> None:
    model = model_of(TOWER)
    precompute_model(model, MIB)
    with pytest.raises(Exception, match="out of data bounds"):
        run(model, {"item": np.array([item]), "user": np.zeros((1, 2), np.float32)})


def test_negative_ids_count_from_the_end_as_before() -> None:
    before, after = model_of(TOWER), model_of(TOWER)
    precompute_model(after, MIB)
    feeds = {"item": np.array([-1, -3]), "user": np.array([[1, 2], [3, 4]], np.float32)}
    np.testing.assert_allclose(run(after, feeds), run(before, feeds), rtol=1e-6)


def test_no_rows_and_one_row_work() -> None:
    model = model_of(TOWER)
    precompute_model(model, MIB)
    for rows in (0, 1):
        assert run(model, {"item": np.zeros(rows, np.int64), "user": np.zeros((rows, 2), np.float32)}).shape == (rows, 1)


def test_a_budget_that_is_too_small_leaves_the_tower() -> None:
    model = model_of(TOWER)
    done, refused = precompute_model(model, 23)
    assert not done and len(refused) == 1 and "Gemm" in operators(model)


def wide(parts: str, reads: str, columns: int) -> ir.Model:
    """A first layer of 4 units on columns that `parts` computes and `reads` names, all weights different."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
    ranker (int64[rows] user, int64[rows] item, float[rows,1] price) => (float[rows,4] y)
    <float[5,500] users, float[7,500] items, float[7,1] bias, float[{columns},4] w, float[4] b = {{1, 2, 3, 4}}>
    {{ {parts} x = Concat<axis = 1>({reads})  y = Gemm(x, w, b) }}"""
    proto = onnx.parser.parse_model(
        text.replace("float[5,500] users, float[7,500] items, float[7,1] bias, ", "").replace(f"float[{columns},4] w, ", "")
    )
    random = np.random.default_rng(0)
    for name, shape in {"users": (5, 500), "items": (7, 500), "bias": (7, 1), "w": (columns, 4)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    return ir.from_proto(proto)


RANKED = {"user": np.array([0, 4, 2]), "item": np.array([6, 0, 3]), "price": np.array([[1], [2], [3]], np.float32)}


def test_the_first_layer_of_a_ranker_is_looked_up_part_by_part() -> None:
    parts = "u = Gather(users, user)  i = Gather(items, item)  c = Gather(bias, item) "
    model = wide(parts, "u, price, i, c", 1002)
    before = run(model, RANKED)
    done, _ = precompute_model(model, MIB)
    np.testing.assert_allclose(run(model, RANKED), before, rtol=1e-5, atol=1e-4)
    # One table for the user, one for both columns of the item; the price keeps its product.
    assert sorted(operators(model)) == ["Add", "Add", "Gather", "Gather", "Gemm"]
    assert sorted((one.rows, one.width) for one in done) == [(5, 4), (7, 4)]


def test_a_bias_that_the_request_gives_is_added_as_before() -> None:
    parts = "u = Gather(users, user)  i = Gather(items, item)  b2 = Mul(price, b) "
    model = wide(parts, "u, price, i", 1001)
    (layer,) = (node for node in model.graph if node.op_type == "Gemm")
    (bias,) = (node for node in model.graph if node.op_type == "Mul")
    layer.replace_input_with(2, bias.outputs[0])
    before = run(model, RANKED)
    assert len(precompute_model(model, MIB)[0]) == 2
    np.testing.assert_allclose(run(model, RANKED), before, rtol=1e-5, atol=1e-4)
    assert sorted(operators(model)) == ["Add", "Add", "Gather", "Gather", "Gemm", "Mul"]


def test_rows_with_an_axis_of_size_1_side_by_side_are_split_too() -> None:
    parts = """k = Unsqueeze(user, one)  u = Gather(users, k)  l = Unsqueeze(item, one)  i = Gather(items, l)
        both = Concat<axis = 1>(u, i)  flat = Reshape(both, shape) """
    model = wide(parts, "flat, price", 1001)
    proto = ir.to_proto(model)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1, 1000]), "shape"))
    model = ir.from_proto(proto)
    before = run(model, RANKED)
    done, _ = precompute_model(model, MIB)
    np.testing.assert_allclose(run(model, RANKED), before, rtol=1e-5, atol=1e-4)
    assert len(done) == 2


def test_a_layer_of_one_unit_is_not_taken_apart_for_two_more_nodes() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    ranker (int64[rows] item, float[rows,1] x) => (float[rows,1] y)
    <float[2,2] t = {1, 2, 3, 4}, float[3,1] w = {1, 2, 3}>
    { r = Gather(t, item)  c = Concat<axis = 1>(r, x)  y = MatMul(c, w) }"""
    assert precompute_model(model_of(text), MIB) == ([], [])


def test_a_narrow_embedding_before_a_wide_layer_is_no_less_work_as_a_lookup() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    ranker (int64[rows] item, float[rows,1] x) => (float[rows,8] y)
    <float[2,1] t = {1, 2}, float[2,8] w = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}>
    { r = Gather(t, item)  c = Concat<axis = 1>(r, x)  y = MatMul(c, w) }"""
    model = model_of(text)
    assert precompute_model(model, MIB) == ([], [])
    assert operators(model) == ["Gather", "Concat", "MatMul"]


HISTORY = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (int64[rows,3] history) => (float[rows,2] score)
<float[4,2] table = {1, 2, 3, 4, 5, 6, 7, 8}, float[3,2] places = {1, 1, 2, 2, 3, 3}, float[2,2] w = {0, 1, 1, 0}, int64[1] one = {1}>
{
    rows_ = Gather(table, history)
    keys = MatMul(rows_, w)
    placed = Add(keys, places)
    score = ReduceSum<keepdims = 0>(placed, one)
}
"""


def test_what_depends_on_the_place_in_a_history_is_left_to_the_request() -> None:
    model = model_of(HISTORY)
    feeds = {"history": np.array([[0, 1, 2], [3, 3, 3]])}
    before = run(model, feeds)
    done, _ = precompute_model(model, MIB)
    assert operators(model) == ["Gather", "Add", "ReduceSum"] and len(done) == 1
    np.testing.assert_allclose(run(model, feeds), before)


def test_converted_and_quantized_tables_stay_small() -> None:
    half = HISTORY.replace("float[4,2] table", "float16[4,2] table").replace(
        "rows_ = Gather(table, history)", "h = Gather(table, history) rows_ = Cast<to = 1>(h)"
    )
    model = model_of(half.replace("keys = MatMul(rows_, w)", "keys = Identity(rows_)"))
    assert precompute_model(model, MIB)[0] == []


def test_a_value_that_is_an_output_keeps_its_name() -> None:
    model = model_of(TOWER.replace("=> (float[rows,1] score)", "=> (float[rows,2] unit, float[rows,1] score)"))
    precompute_model(model, MIB)
    assert [value.name for value in model.graph.outputs] == ["unit", "score"]
    np.testing.assert_allclose(run(model, {"item": np.array([2]), "user": np.ones((1, 2), np.float32)}), [[0.6, 0.8]], rtol=1e-6)


def test_the_step_says_how_much_less_work_it_is(tmp_path: Path) -> None:
    one_input = (
        TOWER.replace(", float[rows,2] user", "").replace("user)", "w2)").replace("int64[1] last", "float[2] w2 = {5, 10}, int64[1] last")
    )
    one_input = one_input.replace("product = Mul(unit, w2)\n    score = ReduceSum(product, last)", "score = ReduceSum(unit, last)")
    record, _ = run_step(Precompute(), context_of(one_input, tmp_path, {"item": np.array([0, 2])}))
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"item": np.array([2])}), [[1.4]], rtol=1e-6)
    # Per candidate: 2 * 2 * 2 + 2 for the layer, 2 Relu, 4 + 1 for the length, 1, 2, and 1 for the sum.
    assert record.numbers["flops_saved"] > 0 and record.numbers["tables"] == 1.0
    assert {array.shape for array in weights(tmp_path / "out.onnx").values()} == {(3, 1)}


PLAIN = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (float[rows,2] x) => (float[rows,1] score) <float[2,1] w = {1, 2}> { score = MatMul(x, w) }
"""


def test_a_model_without_lookups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="nothing depends on one id alone"):
        run_step(Precompute(), context_of(PLAIN, tmp_path, {"x": np.ones((2, 2), np.float32)}))
    assert not (tmp_path / "out.onnx").exists()
