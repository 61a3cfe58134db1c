"""Hidden layers found in all their forms, and pruned without changing what the model says where that is possible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from liftgate.core.errors import InputError, RefusedStep
from liftgate.core.signature import Layout
from liftgate.optimize.passes.hidden_layers import find_hidden_layers
from liftgate.optimize.passes.linears import prepared
from liftgate.optimize.passes.observe import score_error
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import Prune

from .calibrated import CANDIDATES, calibrated, numbers, scores, shapes
from .onnx_text import graph, signature

REQUESTS = 40
# Unit 2 is the sum of units 0 and 1: whichever of the three goes, the others can say what it said.
SUM = np.array([[1, 0, 1], [0, 1, 1]], dtype=np.float32)
MLP = """(float[rows,2] x) => (float[rows,1] score)
<float[2,3] w1 = {}, float[3,1] w2 = {}> { h = MatMul(x, w1)  a = Relu(h)  score = MatMul(a, w2) }"""
BIASED = """(float[rows,2] x) => (float[rows,1] score)
<float[3,2] w1 = {}, float[3] b1 = {}, float[1,3] w2 = {}, float[1] b2 = {7}>
{ h = Gemm<transB = 1>(x, w1, b1)  a = Relu(h)  score = Gemm<transB = 1>(a, w2, b2) }"""


def positive(*sizes: int, seed: int = 0) -> np.ndarray:
    return numbers(REQUESTS, *sizes, seed=seed)


def test_what_a_removed_unit_said_is_said_by_the_others(tmp_path: Path) -> None:
    weights = {"w1": SUM, "w2": np.array([[1], [2], [3]])}
    context = calibrated(MLP, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    record, _ = run_step(Prune(keep=0.6, multiple_of=1), context)
    assert shapes(context.target) == {"w1": (2, 2), "w2": (2, 1)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=2e-3)
    assert record.numbers["units_after"] == 2.0
    assert record.numbers["score_error"] < 2e-3
    # As they were, the other two units are missed: 3 (x0 + x1) of x0 + 2 x1 + 3 (x0 + x1), or x0.
    run_step(Prune(keep=0.6, multiple_of=1, refit=False), context)
    assert np.abs(scores(context, after=True) - scores(context, after=False)).max() > 0.5


def test_a_unit_that_never_varies_moves_into_the_bias(tmp_path: Path) -> None:
    weights = {"w1": np.array([[1, 0], [0, 1], [0, 0]]), "b1": np.array([0, 0, 5]), "w2": np.array([[1, 1, 2]])}
    context = calibrated(BIASED, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    bias = next(onnx.numpy_helper.to_array(t) for t in onnx.load(context.target).graph.initializer if t.name.startswith("b2"))
    # 7 + 2 * 5.
    np.testing.assert_allclose(bias, [17], rtol=1e-3)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=1e-3)


def test_as_few_units_stay_as_the_error_allows(tmp_path: Path) -> None:
    # Independent units of weight 10, 1 and 0.01: without the last the error is about 0.001, without the last two about 0.1.
    text = MLP.replace("[2,3]", "[3,3]").replace("rows,2", "rows,3")
    weights = {"w1": np.eye(3), "w2": np.array([[10], [1], [0.01]])}
    context = calibrated(text, tmp_path, {"x": positive(CANDIDATES, 3)}, weights=weights)
    for error, units in ((0.01, 2), (0.2, 1)):
        record, _ = run_step(Prune(max_error=error, multiple_of=1), context)
        assert record.numbers["units_after"] == units
    with pytest.raises(RefusedStep, match=r"no hidden layer can lose units within max_error 1e-05: w1 3 -> 3"):
        run_step(Prune(max_error=1e-5, multiple_of=1), context)


def test_an_error_needs_requests_and_a_share_no_error() -> None:
    with pytest.raises(InputError, match="expected either keep or max error, found neither"):
        Prune()
    with pytest.raises(InputError, match="found keep and max error"):
        Prune(keep=0.5, max_error=0.1)


def test_too_few_rows_to_fit_on_are_refused_with_the_numbers(tmp_path: Path) -> None:
    columns = {"x": numbers(4, 1, 2)}
    context = calibrated(MLP, tmp_path, columns, weights={"w1": SUM, "w2": np.ones((3, 1))})
    # Three of four requests are fitted on.
    with pytest.raises(RefusedStep, match="'score' has 3 different rows to fit 2 weights on, 6 are needed"):
        run_step(Prune(keep=0.6, multiple_of=1), context)
    assert not context.target.exists()


def test_rows_that_repeat_one_request_count_once(tmp_path: Path) -> None:
    columns = {"x": np.repeat(numbers(4, 1, 2), 50, axis=1)}
    context = calibrated(MLP, tmp_path, columns, weights={"w1": SUM, "w2": np.ones((3, 1))})
    with pytest.raises(RefusedStep, match="has 3 different rows"):
        run_step(Prune(keep=0.6, multiple_of=1), context)


# A hoisted first layer: the user's part is computed once, and added to every candidate's.
PARTS = """(float[1,2] user, float[rows,2] item) => (float[rows,1] score)
<float[2,3] wu = {}, float[3] b1 = {0, 0, 0}, float[2,3] wi = {}, float[3,1] w2 = {}>
{ u = Gemm(user, wu, b1)  i = MatMul(item, wi)  h = Add(u, i)  a = Relu(h)  score = MatMul(a, w2) }"""


GEMM_PARTS = PARTS.replace("i = MatMul(item, wi)  h = Add(u, i)", "h = Gemm(item, wi, u)")


@pytest.mark.parametrize("text", [PARTS, GEMM_PARTS])
def test_both_parts_of_a_sum_lose_the_same_units(tmp_path: Path, text: str) -> None:
    columns = {"user": positive(2), "item": positive(CANDIDATES, 2, seed=1)}
    weights = {"wu": SUM, "wi": SUM, "w2": np.array([[1], [2], [3]])}
    context = calibrated(text, tmp_path, columns, weights=weights, request="user", layout="request")
    run_step(Prune(keep=0.6, multiple_of=1), context)
    assert shapes(context.target) == {"wu": (2, 2), "b1": (2,), "wi": (2, 2), "w2": (2, 1)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=2e-3)


# Two experts behind one another in a stack, mixed by a gate, read by two towers.
EXPERTS = """(float[rows,2] x) => (float[rows,1] score, float[rows,1] other)
<float[2,3] e1 = {}, float[2,3] e2 = {}, float[2,2] wg = {}, float[3,1] t1 = {}, float[3,1] t2 = {}, int64[1] one = {1}>
{
    a = MatMul(x, e1)  b = MatMul(x, e2)  a1 = Relu(a)  b1 = Relu(b)  au = Unsqueeze(a1, one)  bu = Unsqueeze(b1, one)
    both = Concat<axis = 1>(au, bu)  g = MatMul(x, wg)  s = Softmax<axis = -1>(g)  su = Unsqueeze(s, one)
    m = MatMul(su, both)  mixed = Squeeze(m, one)  score = MatMul(mixed, t1)  other = MatMul(mixed, t2)
}"""


def test_experts_that_are_mixed_by_a_gate_lose_the_same_units(tmp_path: Path) -> None:
    weights = {"e1": SUM, "e2": 2 * SUM, "wg": np.array([[1, 0], [0, 2]]), "t1": np.array([[1], [2], [3]]), "t2": np.array([[3], [1], [2]])}
    context = calibrated(EXPERTS, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    found = shapes(context.target)
    assert {name: found[name] for name in weights} == {"e1": (2, 2), "e2": (2, 2), "wg": (2, 2), "t1": (2, 1), "t2": (2, 1)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=3e-3)


def test_experts_of_two_layers_are_pruned_from_the_first_on(tmp_path: Path) -> None:
    text = EXPERTS.replace("float[2,3] e2", "float[2,3] f1 = {}, float[2,3] f2 = {}, float[3,3] e2").replace(
        "float[2,3] e1", "float[3,3] e1"
    )
    text = text.replace(
        "a = MatMul(x, e1)  b = MatMul(x, e2)", "p = MatMul(x, f1)  a = MatMul(p, e1)  q = MatMul(x, f2)  b = MatMul(q, e2)"
    )
    weights = {"f1": SUM, "f2": SUM, "e1": numbers(3, 3, seed=1), "e2": numbers(3, 3, seed=2), "wg": np.eye(2)}
    weights |= {"t1": np.array([[1], [2], [3]]), "t2": np.array([[3], [1], [2]])}
    context = calibrated(text, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    layers = find_hidden_layers(graph(text), context.signature)
    assert [layer.name for layer in layers] == ["f1", "f2", "e1"]
    record, _ = run_step(Prune(keep=0.6, multiple_of=1), context)
    found = shapes(context.target)
    assert [found[name] for name in ("f1", "e1", "f2", "e2", "t1")] == [(2, 2), (2, 2), (2, 2), (2, 2), (2, 1)]
    assert record.numbers["score_error"] < 0.05


# The same experts as one batch of matrices, [experts, inputs, outputs].
BATCH = """(float[rows,2] x) => (float[rows] score)
<float[2,2,3] w1 = {}, float[2,1,3] b1 = {}, float[2,3,1] w2 = {}, int64[2] axes = {0, 2}>
{ h = MatMul(x, w1)  c = Add(h, b1)  a = Relu(c)  y = MatMul(a, w2)  score = ReduceSum<keepdims = 0>(y, axes) }"""


def test_a_batch_of_matrices_is_pruned_as_one_and_fitted_one_by_one(tmp_path: Path) -> None:
    weights: dict[str, np.ndarray] = {"w1": np.stack([SUM, 2 * SUM]), "b1": np.zeros((2, 1, 3))}
    weights["w2"] = np.array([[[1], [2], [3]], [[3], [1], [2]]])
    context = calibrated(BATCH, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    assert shapes(context.target) == {"w1": (2, 2, 2), "b1": (2, 1, 2), "w2": (2, 2, 1), "axes": (2,)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=3e-3)


# Two towers side by side in one vector, normalized there, and one layer that reads both.
TOWERS = """(float[rows,2] x) => (float[rows,1] score)
<float[2,3] w1 = {}, float[2,3] v1 = {}, float[6] scale = {}, float[6] shift = {}, float[6] mean = {}, float[6] var = {},
 float[6,1] w2 = {}>
{
    h = Gemm(x, w1)  a = Relu(h)  g = Gemm(x, v1)  b = LeakyRelu<alpha = 0.5>(g)  both = Concat<axis = -1>(a, b)
    n = BatchNormalization<epsilon = 0.0>(both, scale, shift, mean, var)  score = MatMul(n, w2)
}"""


def test_towers_in_one_vector_are_pruned_one_after_the_other(tmp_path: Path) -> None:
    ones = np.ones(6)
    norm = {"scale": 2 * ones, "shift": 0 * ones, "mean": 0 * ones, "var": ones}
    weights: dict[str, np.ndarray] = {"w1": SUM, "v1": SUM, **norm, "w2": np.arange(1, 7)[:, None]}
    context = calibrated(TOWERS, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    record, _ = run_step(Prune(keep=0.6, multiple_of=1), context)
    assert "w1 3 -> 2" in record.summary
    assert "v1 3 -> 2" in record.summary
    found = shapes(context.target)
    assert (found["w1"], found["v1"], found["w2"], found["mean"]) == ((2, 2), (2, 2), (4, 1), (4,))
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=3e-3)


TWO_LAYERS = """(float[rows,2] x) => (float[rows,1] score)
<float[2,3] w1 = {}, float[3,3] w2 = {}, float[3,1] w3 = {}>
{ h = MatMul(x, w1)  a = Relu(h)  g = MatMul(a, w2)  b = Relu(g)  score = MatMul(b, w3) }"""


def test_a_later_layer_makes_up_for_what_an_earlier_one_lost(tmp_path: Path) -> None:
    weights = {"w1": numbers(2, 3), "w2": numbers(3, 3, seed=1), "w3": numbers(3, 1, seed=2)}
    context = calibrated(TWO_LAYERS, tmp_path, {"x": positive(CANDIDATES, 2)}, weights=weights)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    # Positive throughout, so the model is linear in two inputs and two units are enough.
    assert shapes(context.target) == {"w1": (2, 2), "w2": (2, 2), "w3": (2, 1)}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=5e-3)


def test_half_precision_weights_stay_half_precision(tmp_path: Path) -> None:
    context = calibrated(MLP, tmp_path, {"x": positive(CANDIDATES, 2)}, weights={"w1": SUM, "w2": np.ones((3, 1))})
    model = onnx.load(context.source)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    cast = [
        onnx.helper.make_node("Cast", ["x"], ["x16"], to=10),
        *model.graph.node,
        onnx.helper.make_node("Cast", ["s16"], ["score"], to=1),
    ]
    cast[1].input[0], cast[-2].output[0] = "x16", "s16"
    del model.graph.node[:]
    model.graph.node.extend(cast)
    onnx.save(model, context.source)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    assert {tensor.data_type for tensor in onnx.load(context.target).graph.initializer} == {onnx.TensorProto.FLOAT16}
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=1e-2)


@pytest.mark.parametrize(
    ("between", "why"),
    [
        ("a = LayerNormalization(h, scale)", "a mean over units mixes them"),
        ("r = Relu(h)  a = Add(r, x)", "the inputs are added unit by unit"),
        ("t = Transpose<perm = [1, 0]>(h)  a = MatMul(h, t)", "rows are compared with one another"),
        ("s = Relu(h)  a = Slice(s, zero, two, minus)", "one half is read alone"),
        ("a = Softmax<axis = -1>(h)", "a share depends on every unit"),
    ],
)
def test_units_that_are_mixed_are_no_hidden_layer(between: str, why: str) -> None:
    text = f"""(float[rows,4] x) => (float[rows,n] score)
    <float[4,4] w1 = {{}}, float[4] scale = {{}}, float[4,2] w2 = {{}}, int64[1] zero = {{0}}, int64[1] two = {{2}},
     int64[1] minus = {{-1}}>
    {{ h = MatMul(x, w1)  {between}  score = MatMul(a, w2) }}"""
    model = graph(text)
    assert find_hidden_layers(model, signature(model)) == [], why


@pytest.mark.parametrize("layout", ["rows", "request"])
def test_a_user_tower_is_judged_by_the_requests_it_saw(tmp_path: Path, layout: Layout) -> None:
    text = """(float[users,2] user, float[rows,1] item) => (float[rows,1] score)
    <float[2,3] w1 = {}, float[3,1] w2 = {}> { h = MatMul(user, w1)  a = Relu(h)  u = MatMul(a, w2)  score = Mul(u, item) }"""
    columns = {"user": positive(2), "item": positive(CANDIDATES, 1, seed=1)}
    context = calibrated(text, tmp_path, columns, weights={"w1": SUM, "w2": np.ones((3, 1))}, request="user", layout=layout)
    run_step(Prune(keep=0.6, multiple_of=1), context)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=3e-3)


# The layer behind reads the units of a request's part and of a candidate's part; the bias stands with the first.
SUM_BEHIND = """(float[1,3] user, float[rows,2] item) => (float[rows,2] score)
<float[3,2] wu = {}, float[2] b2 = {1, 2}, float[2,3] w1 = {}, float[3] b1 = {0, 0, 5}, float[3,2] w2 = {}>
{ u = Gemm(user, wu, b2)  h = Gemm(item, w1, b1)  a = Relu(h)  score = Gemm(a, w2, u) }"""


def test_a_constant_unit_moves_into_the_bias_of_a_sum_wherever_that_stands(tmp_path: Path) -> None:
    columns = {"user": positive(3), "item": positive(CANDIDATES, 2, seed=1)}
    first = np.array([[1, 0, 0], [0, 1, 0]])
    weights = {"wu": numbers(3, 2), "w1": first, "w2": np.array([[1, 2], [3, 1], [2, 4]])}
    context = calibrated(SUM_BEHIND, tmp_path, columns, weights=weights, request="user", layout="request")
    run_step(Prune(keep=0.6, multiple_of=1), context)
    bias = next(onnx.numpy_helper.to_array(t) for t in onnx.load(context.target).graph.initializer if t.name.startswith("b2"))
    # 1 + 2 * 5 and 2 + 4 * 5.
    np.testing.assert_allclose(bias, [11, 22], rtol=1e-3)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=1e-3)


def test_weights_that_a_branch_reads_too_stay_whole_there(tmp_path: Path) -> None:
    text = """(float[rows,2] x) => (float[rows,1] score)
    <float[2,3] w1 = {}, float[3,1] w2 = {}, bool yes = {1}>
    {
        h = MatMul(x, w1)  a = Relu(h)  s = MatMul(a, w2)
        extra = If(yes) <then_branch = t () => (float[rows,1] o) { g = MatMul(x, w1)  o = MatMul(g, w2) },
                         else_branch = e () => (float[rows,1] p) { p = Identity(s) }>
        score = Add(s, extra)
    }"""
    context = calibrated(text, tmp_path, {"x": positive(CANDIDATES, 2)}, weights={"w1": SUM, "w2": np.ones((3, 1))})
    run_step(Prune(keep=0.6, multiple_of=1), context)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=2e-3)


def test_the_score_error_leaves_out_what_moves_a_whole_request(tmp_path: Path) -> None:
    # The score is 3 user + item; without the user's unit the scores within a request are what they were.
    text = """(float[users,1] user, float[rows,1] item) => (float[rows,1] score)
    <float[1,2] wu = {3, 0}, float[1,2] wi = {0, 1}, float[2,1] w2 = {1, 1}>
    { u = MatMul(user, wu)  i = MatMul(item, wi)  h = Add(u, i)  a = Relu(h)  score = MatMul(a, w2) }"""
    columns = {"user": positive(1), "item": positive(CANDIDATES, 1, seed=1)}
    context = calibrated(text, tmp_path, columns, request="user", layout="request")
    before = prepared(context.source, "model")
    for kept, expected in ((1, 0.0), (0, 1.0)):
        model = prepared(context.source, "model")
        [layer] = find_hidden_layers(model, context.signature)
        layer.shrink(model, np.array([kept]))
        assert score_error(before, model, context)["score_error"] == pytest.approx(expected, abs=1e-6)


# Dice, as deepctr-torch writes it over a history: units are normalized, and gated, on the second axis.
DICE = """(float[rows,5,2] x) => (float[rows,5,1] score)
<float[2,3] w1 = {}, float[3] b1 = {}, float[3] scale = {}, float[3] shift = {}, float[3] mean = {}, float[3] var = {},
 float[3,1] alpha = {}, float[3,1] w2 = {}, float one = {1}>
{
    h = MatMul(x, w1)  c = Add(h, b1)  t = Transpose<perm = [0, 2, 1]>(c)
    n = BatchNormalization<epsilon = 0.0>(t, scale, shift, mean, var)  p = Sigmoid(n)  q = Sub(one, p)
    aq = Mul(alpha, q)  low = Mul(aq, t)  high = Mul(p, t)  s = Add(low, high)
    back = Transpose<perm = [0, 2, 1]>(s)  score = MatMul(back, w2)
}"""


def test_units_are_followed_through_transposes(tmp_path: Path) -> None:
    # Unit 1 is never read, so it goes; all of its own numbers go with it.
    weights = {"w1": numbers(2, 3), "b1": np.array([1, 2, 3]), "scale": np.array([1, 2, 3]), "shift": np.array([4, 5, 6])}
    weights |= {"mean": np.array([7, 8, 9]), "var": np.array([1, 4, 9]), "alpha": np.array([[0.1], [0.2], [0.3]])}
    context = calibrated(DICE, tmp_path, {"x": positive(CANDIDATES, 5, 2)}, weights={**weights, "w2": np.array([[1], [0], [2]])})
    run_step(Prune(keep=0.6, multiple_of=1), context)
    found = {t.name: onnx.numpy_helper.to_array(t).tolist() for t in onnx.load(context.target).graph.initializer}
    assert {name: found[f"{name}_kept"] for name in ("b1", "mean", "var")} == {"b1": [1, 3], "mean": [7, 9], "var": [1, 9]}
    np.testing.assert_allclose(found["alpha_kept"], [[0.1], [0.3]], rtol=1e-6)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), rtol=1e-3)
