"""Every rule on a graph written as ONNX text: the same numbers from fewer nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
from liftgate.core.errors import RefusedStep
from liftgate.optimize.fuse.fuse import fuse_model
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Fuse

from .step_context import context_of, score

X = np.array([[1.0, 2.0], [-3.0, 0.5], [0.25, -1.0]], dtype=np.float32)


def parsed(body: str, *, inputs: str = "float[rows,2] x", outputs: str = "float[rows,2] y", weights: str = "", opset: int = 20) -> ir.Model:
    text = f'<ir_version: 10, opset_import: ["" : {opset}]>\nranker ({inputs}) => ({outputs}) <{weights}> {{ {body} }}'
    return ir.from_proto(onnx.parser.parse_model(text))


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(found) for found in session.run(None, feeds)]


def fused(model: ir.Model, feeds: dict[str, np.ndarray]) -> tuple[list[str], list[np.ndarray]]:
    """Operators left and the outputs, which are those of before: for all rows, for one, and for none."""
    sizes = [len(next(iter(feeds.values()))), 1, 0]
    before = [run(model, {name: array[:size] for name, array in feeds.items()}) for size in sizes]
    names = [value.name for value in model.graph.outputs]
    fuse_model(model)
    onnx.checker.check_model(ir.to_proto(model))
    assert [value.name for value in model.graph.outputs] == names
    for size, expected in zip(sizes, before, strict=True):
        for one, other in zip(expected, run(model, {name: array[:size] for name, array in feeds.items()}), strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    return [node.op_type for node in model.graph], before[0]


NORM = "float[2] g = {4, 4}, float[2] b = {1, -1}, float[2] m = {3, 5}, float[2] v = {3, 15}"
NORMED = "BatchNormalization <epsilon = 1.0>"


def test_batch_normalisation_goes_into_the_linear_layer_before_it() -> None:
    body = f"h = Gemm<transB = 1>(x, w, c)  y = {NORMED}(h, g, b, m, v)"
    model = parsed(body, weights=f"float[2,2] w = {{1, 2, 3, 4}}, float[2] c = {{0.5, -0.5}}, {NORM}")
    left, (y,) = fused(model, {"x": X})
    assert left == ["Gemm"]
    # Row [1, 2]: 1 + 4 + 0.5 = 5.5 and 3 + 8 - 0.5 = 10.5; scales 4 / sqrt(3 + 1) = 2 and 4 / sqrt(15 + 1) = 1.
    np.testing.assert_allclose(y[0], [2 * (5.5 - 3) + 1, 10.5 - 5 - 1])


def test_batch_normalisation_goes_into_the_linear_layer_behind_it() -> None:
    model = parsed(f"a = Relu(x)  n = {NORMED}(a, g, b, m, v)  y = MatMul(n, w)", weights=f"float[2,2] w = {{1, 2, 3, 4}}, {NORM}")
    left, (y,) = fused(model, {"x": X})
    assert left == ["Relu", "Gemm"]
    # Row [1, 2]: normalised to 2 (1 - 3) + 1 = -3 and 2 - 5 - 1 = -4.
    np.testing.assert_allclose(y[0], [-3 - 12, -6 - 16])


def test_batch_normalisation_in_training_mode_stays() -> None:
    body = "h = MatMul(x, w)  y, mean, var = BatchNormalization <training_mode = 1>(h, g, b, m, v)"
    left, _ = fused(parsed(body, weights=f"float[2,2] w = {{1, 2, 3, 4}}, {NORM}"), {"x": X})
    assert "BatchNormalization" in left


def test_a_hidden_layer_that_something_else_reads_keeps_its_numbers() -> None:
    body = f"h = MatMul(x, w)  n = {NORMED}(h, g, b, m, v)  y = Add(n, h)"
    left, _ = fused(parsed(body, weights=f"float[2,2] w = {{1, 2, 3, 4}}, {NORM}"), {"x": X})
    assert "BatchNormalization" in left


def test_constants_around_linear_layers_go_into_them() -> None:
    body = "s = Mul(x, scale)  h = MatMul(s, w)  i = Add(h, c)  j = Div(i, two)  y = Sub(two, j)"
    weights = "float[2] scale = {10, 100}, float[2,2] w = {1, 2, 3, 4}, float[2] c = {1, -1}, float two = {2}"
    left, (y,) = fused(parsed(body, weights=weights), {"x": X})
    assert left == ["Gemm"]
    # Row [1, 2]: 10 + 600 + 1 and 20 + 800 - 1, halved and taken from 2.
    np.testing.assert_allclose(y[0], [2 - 611 / 2, 2 - 819 / 2])


def test_a_matrix_that_another_node_reads_is_copied_not_changed() -> None:
    body = "h = MatMul(x, w)  i = Mul(h, ten)  k = Relu(i)  y = MatMul(k, w)"
    left, _ = fused(parsed(body, weights="float[2,2] w = {1, 2, 3, 4}, float ten = {10}"), {"x": X})
    assert left == ["MatMul", "Relu", "MatMul"]


def test_half_precision_matrices_are_not_multiplied() -> None:
    body = "h = MatMul(x, w)  i = Mul(h, c)  y = Relu(i)"
    weights = "float16[2,2] w = {1, 2, 3, 4}, float16[2] c = {3, 7}"
    model = parsed(body, weights=weights, inputs="float16[rows,2] x", outputs="float16[rows,2] y")
    assert fused(model, {"x": X.astype(np.float16)})[0] == ["MatMul", "Mul", "Relu"]


def test_the_guard_of_a_division_stays() -> None:
    body = "n = ReduceSum(x, one)  g = Add(n, tiny)  y = Div(x, g)"
    left, _ = fused(parsed(body, weights="int64[1] one = {1}, float tiny = {1e-9}"), {"x": X})
    assert left == ["ReduceSum", "Add", "Div"]


def test_what_adds_exactly_zero_or_changes_nothing_goes() -> None:
    body = """n = Shape<end = 1>(x)  s = Concat<axis = 0>(n, two)  z = ConstantOfShape(s)  a = Add(z, x)  i = Identity(a)
        c = Cast<to = 1>(i)  r = Reshape(c, target)  o = Concat<axis = 1>(r)  y = Relu(o)"""
    left, _ = fused(parsed(body, weights="int64[1] two = {2}, int64[2] target = {-1, 2}"), {"x": X})
    assert left == ["Relu"]


def test_zeros_that_make_more_rows_stay() -> None:
    model = parsed("y = Add(x, z)", inputs="float[1,2] x", outputs="float[3,2] y", weights="float[3,2] z = {0, 0, 0, 0, 0, 0}")
    fuse_model(model)
    assert run(model, {"x": X[:1]})[0].shape == (3, 2)


def test_a_shape_that_the_file_states_wrongly_is_not_believed() -> None:
    model = parsed("y = Expand(x, s)", inputs="float[1,2] x", outputs="float[1,2] y", weights="int64[2] s = {3, 2}")
    fuse_model(model)
    assert [node.op_type for node in model.graph] == ["Expand"]


# PyTorch's nn.BatchNorm1d wants channels on axis 1; Dice (deepctr-torch) has alpha as [channels, 1].
DICE = """h = MatMul(x, w)  t = Transpose<perm = [0, 2, 1]>(h)  n = BatchNormalization <epsilon = 1.0>(t, g, b, m, v)
    p = Sigmoid(n)  q = Sub(one, p)  a = Mul(alpha, q)  k = Mul(a, t)  l = Mul(p, t)  s = Add(k, l)
    y = Transpose<perm = [0, 2, 1]>(s)"""


@pytest.mark.parametrize(("alpha", "elementwise"), [("0.25, -0.5", 6), ("0, 0", 4)])
def test_dice_on_a_sequence_needs_no_transposes_and_fewer_passes(alpha: str, elementwise: int) -> None:
    weights = f"float[2,2] w = {{1, 2, 3, 4}}, float one = {{1}}, float[2,1] alpha = {{{alpha}}}, {NORM}"
    model = parsed(DICE, inputs="float[rows,3,2] x", outputs="float[rows,3,2] y", weights=weights)
    left, _ = fused(model, {"x": np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)})
    assert "Transpose" not in left and "BatchNormalization" not in left
    assert len(left) == 1 + elementwise


def test_a_gate_subtracted_from_something_near_one_is_no_dice() -> None:
    weights = f"float[2,2] w = {{1, 2, 3, 4}}, float one = {{1.5}}, float[2,1] alpha = {{1, 2}}, {NORM}"
    model = parsed(DICE, inputs="float[rows,3,2] x", outputs="float[rows,3,2] y", weights=weights)
    assert "Sub" in fused(model, {"x": np.ones((2, 3, 2), np.float32)})[0]


def test_a_mask_is_not_made_as_wide_as_what_it_multiplies() -> None:
    body = """g = Gather(table, ids)  k = Equal(ids, zero)  n = Not(k)  u = Unsqueeze(n, at)  e = Expand(u, wide)  r = Reshape(e, target)
        c = Cast<to = 1>(r)  p = Mul(g, c)  y = ReduceSum(p, one)"""
    weights = """float[3,2] table = {0, 0, 1, 2, 3, 4}, int64 zero = {0}, int64[2] at = {2, 3}, int64[4] wide = {1, 1, 1, 2},
        int64[3] target = {-1, 3, 2}, int64[1] one = {1}"""
    model = parsed(body, inputs="int64[rows,3] ids", outputs="float[rows,1,2] y", weights=weights)
    left, (y,) = fused(model, {"ids": np.array([[1, 2, 0], [0, 0, 0]])})
    assert left == ["Gather", "Equal", "Not", "Cast", "Reshape", "Mul", "ReduceSum"] or "Expand" not in left
    np.testing.assert_array_equal(y[0], [[4, 6]])


COLUMNS = """a = Slice(X, s0, s1, one, one)  b = Slice(X, s1, s2, one, one)  c = Slice(X, s2, s3, one, one)  d = Slice(X, s3, s5, one, one)
    i = Cast<to = 7>(a)  j = Cast<to = 7>(b)  k = Cast<to = 7>(c)
    e = Gather(t, i)  f = Gather(t, j)  g = Gather(u, k)
    fm = Concat<axis = 1>(e, f, g)  deep = Concat<axis = -1>(e, f, g)  flat = Reshape(deep, target)  z = Concat<axis = 1>(flat, d)
    s = ReduceSum<keepdims = 0>(fm, one)  y = Concat<axis = 1>(z, s)"""
COLUMN_WEIGHTS = """int64[1] s0 = {0}, int64[1] s1 = {1}, int64[1] s2 = {2}, int64[1] s3 = {3}, int64[1] s5 = {5}, int64[1] one = {1},
    float[3,2] t = {0, 1, 2, 3, 4, 5}, float[2,2] u = {6, 7, 8, 9}, int64[2] target = {-1, 6}"""


def columns() -> ir.Model:
    return parsed(COLUMNS, inputs="float[rows,5] X", outputs="float[rows,10] y", weights=COLUMN_WEIGHTS)


def test_id_columns_are_cast_once_and_taken_by_one_split() -> None:
    left, (y,) = fused(columns(), {"X": np.array([[2, 0, 1, 0.5, 0.25], [1, 1, 0, 0.1, 0.2]], np.float32)})
    counts = {name: left.count(name) for name in ("Cast", "Split", "Slice", "Gather", "Concat")}
    # Of four concatenations, one repeats another's layout and two follow one another.
    assert counts == {"Cast": 1, "Split": 1, "Slice": 1, "Gather": 3, "Concat": 2}
    np.testing.assert_allclose(y[0], [4, 5, 0, 1, 8, 9, 0.5, 0.25, 12, 15])


@pytest.mark.parametrize("row", [[3, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, -4, 0, 0, 0]])
def test_an_id_outside_its_table_still_fails(row: list[float]) -> None:
    model = columns()
    fuse_model(model)
    with pytest.raises(Exception, match="out of data bounds"):
        run(model, {"X": np.array([row], np.float32)})


def test_overlapping_slices_stay() -> None:
    body = "a = Slice(x, s0, s2, one)  b = Slice(x, s1, s3, one)  c = Slice(x, s0, s1, one)  y = Concat<axis = 1>(a, b, c)"
    weights = "int64[1] s0 = {0}, int64[1] s1 = {1}, int64[1] s2 = {2}, int64[1] s3 = {3}, int64[1] one = {1}"
    left, _ = fused(
        parsed(body, inputs="float[rows,3] x", outputs="float[rows,5] y", weights=weights),
        {"x": np.arange(6, dtype=np.float32).reshape(2, 3)},
    )
    assert left == ["Slice", "Slice", "Slice", "Concat"]


def test_embeddings_are_concatenated_without_an_axis_that_is_dropped_again() -> None:
    body = "a = Gather(t, i)  b = Unsqueeze(a, one)  c = Gather(u, i)  d = Unsqueeze(c, one)  e = Concat<axis = 1>(b, d)  y = Reshape(e, s)"
    weights = "float[2,1] t = {1, 2}, float[2,1] u = {3, 4}, int64[1] one = {1}, int64[2] s = {-1, 2}"
    left, (y,) = fused(parsed(body, inputs="int64[rows] i", weights=weights), {"i": np.array([1, 0])})
    assert left == ["Gather", "Gather", "Concat"]
    np.testing.assert_array_equal(y, [[2, 4], [1, 3]])


def test_experts_of_one_input_become_one_product() -> None:
    body = """a = Gemm<transB = 1>(x, w1, b1)  ra = Relu(a)  b = MatMul(x, w2)  bb = Add(b, b2)  rb = Relu(bb)
        c = Gemm(x, w3)  rc = Relu(c)
        s = Add(ra, rb)  y = Add(s, rc)"""
    weights = """float[2,2] w1 = {1, 2, 3, 4}, float[2] b1 = {1, -1}, float[2,2] w2 = {5, 6, 7, 8}, float[2] b2 = {2, 0},
        float[2,2] w3 = {-1, 0, 0, 1}"""
    left, (y,) = fused(parsed(body, weights=weights), {"x": X})
    assert left == ["Gemm", "Relu", "Split", "Add", "Add"]
    # Row [1, 2]: (1 + 4 + 1, 3 + 8 - 1), (5 + 14 + 2, 6 + 16) and (0, 2).
    np.testing.assert_allclose(y[0], [27, 34])


def test_linear_layers_on_a_sequence_take_their_bias_and_activation_in() -> None:
    body = "h = MatMul(x, w)  i = Add(h, c)  r = Relu(i)  j = MatMul(r, u)  k = Add(j, d)  y = Tanh(k)"
    weights = "float[2,3] w = {1, 2, 3, 4, 5, 6}, float[3] c = {1, -9, 2}, float[3,2] u = {1, 0, 0, 1, 1, 1}, float[2] d = {0.5, -40}"
    model = parsed(body, inputs="float[rows,4,2] x", outputs="float[rows,4,2] y", weights=weights)
    left, _ = fused(model, {"x": np.random.default_rng(1).normal(size=(3, 4, 2)).astype(np.float32)})
    assert left == ["Reshape", "Gemm", "Relu", "Gemm", "Tanh", "Reshape"]


def test_equal_tables_are_stored_once_and_looked_up_once() -> None:
    body = "a = Gather(t, i)  b = Gather(u, i)  y = Concat<axis = 1>(a, b)"
    big = ", ".join(str(number) for number in range(2000))
    model = parsed(
        body, inputs="int64[rows] i", outputs="float[rows,4] y", weights=f"float[1000,2] t = {{{big}}}, float[1000,2] u = {{{big}}}"
    )
    left, _ = fused(model, {"i": np.array([3, 999])})
    assert left == ["Gather", "Concat"] and len(model.graph.initializers) == 1


def test_what_a_branch_reads_is_still_there() -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    ranker (float[rows,2] x, bool flag) => (float[rows,2] y) <float[2,2] w = {1, 2, 3, 4}, float two = {2}> {
        h = MatMul(x, w)
        d = Mul(h, two)
        y = If (flag) <then_branch = t () => (float[rows,2] a) { a = Relu(h) }, else_branch = e () => (float[rows,2] b) { b = Neg(d) }>
    }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    feeds = {"x": X, "flag": np.array(True)}
    before = run(model, feeds)
    fuse_model(model)
    np.testing.assert_allclose(run(model, feeds)[0], before[0])


LINEAR = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (float[rows,2] x) => (float[rows,1] score) <float[2,1] w = {1, 2}, float[1] c = {3}>
{ h = MatMul(x, w)  score = Add(h, c) }
"""


def test_the_step_says_what_it_found(tmp_path: Path) -> None:
    record, _ = run_step(Fuse(), context_of(LINEAR, tmp_path, {"x": X}))
    assert record.summary == "2 -> 1 nodes: 1 constants into linear layers"
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"x": X})[0], [8.0])


def test_a_model_with_nothing_to_clean_up_is_refused(tmp_path: Path) -> None:
    plain = LINEAR.replace("h = MatMul(x, w)  score = Add(h, c)", "score = Gemm(x, w, c)")
    with pytest.raises(RefusedStep, match="no rule found anything to do among 1 nodes"):
        run_step(Fuse(), context_of(plain, tmp_path, {"x": X}))
    assert not (tmp_path / "out.onnx").exists()


def test_operators_of_before_opset_13_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="opset 11"):
        run_step(Fuse(), context_of(LINEAR.replace('"" : 20', '"" : 11'), tmp_path, {"x": X}))


@pytest.mark.parametrize(
    ("slopes", "operators"),
    [("0.25, 0.25", ["LeakyRelu"]), ("0.25, 0.5", ["Mul", "Max"]), ("-2, 0.5", ["Relu", "Min", "Mul", "Add"])],
)
def test_a_prelu_becomes_what_runs_on_many_numbers_at_once(slopes: str, operators: list[str]) -> None:
    model = parsed("y = PRelu(x, s)", weights=f"float[2] s = {{{slopes}}}")
    rows = np.array([[1, 2], [-4, -8]], np.float32)
    left, (y,) = fused(model, {"x": rows})
    first, second = (float(slope) for slope in slopes.split(","))
    assert sorted(left) == sorted(operators)
    np.testing.assert_array_equal(y, [[1, 2], [-4 * first, -8 * second]])
