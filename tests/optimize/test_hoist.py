"""hoist_request: what it moves, what it must not move, and that scores stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liftgate.core.artifact import ModelRef
from liftgate.core.signature import InputSpec, OutputSpec, Role, Signature
from liftgate.optimize.cost.cost import cost_of
from liftgate.optimize.cost.sizes import sizes_of
from liftgate.optimize.hoist.hoist import Hoisted, hoist
from liftgate.runtime.onnx_session import OnnxSession

from .onnx_text import graph, signature
from .random_rankers import ITEMS, USERS, WIDTH, RandomRanker, feeds


def session(model: onnx.ModelProto | ir.Model, of: Signature) -> OnnxSession:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    options = ort.SessionOptions()
    options.log_severity_level = 4
    made = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return OnnxSession(made, of, ModelRef(name="model", digest="", runtime="onnxruntime", size_bytes=0))


def hoisted(text: str, request: str) -> Hoisted:
    model = graph(text, opset=20)
    return hoist(model, signature(model, request=request))


def operators(made: Hoisted) -> list[str]:
    return [node.op_type for node in made.model.graph]


def flops(made: Hoisted, candidates: int = 100) -> int:
    return cost_of(made.model, made.signature, sizes_of(made.signature, candidates=candidates)).flops.total


def test_the_users_part_of_the_first_layer_is_multiplied_once() -> None:
    made = hoisted(
        """(float[rows,3] user, float[rows,2] item) => (float[rows,4] score) <float[5,4] w = {}, float[4] b = {}>
        { both = Concat<axis = -1>(user, item)   product = MatMul(both, w)   score = Add(product, b) }""",
        "user",
    )
    # 2 x 3 x 4 once, 2 x 2 x 4 for each of 100 candidates; the sum comes with the second product.
    assert operators(made) == ["Gemm", "Gemm"]
    assert sum(2 * k * 4 * rows for k, rows in ((3, 1), (2, 100))) <= flops(made) < 2 * 5 * 4 * 100


def test_target_attention_becomes_one_product_per_request() -> None:
    text = """(float[rows,5,3] past, float[rows,3] item) => (float[rows,5,4] score)
        <float[12,4] w = {}, int64[1] one = {1}, float[4] b = {}>
        {
            q = Unsqueeze(item, one)   shape = Shape(past)   wide = Expand(q, shape)
            minus = Sub(wide, past)   times = Mul(wide, past)
            both = Concat<axis = -1>(wide, past, minus, times)   product = MatMul(both, w)   score = Add(product, b)
        }"""
    made = hoisted(text, "past")
    (product,) = [node for node in made.model.graph if node.op_type == "Gemm"]
    assert [node.op_type for node in made.model.graph if node.op_type in {"MatMul", "Concat"}] == ["MatMul"]
    assert made.model.graph.outputs[0].producer() is not product  # it is given its three axes back
    # Per candidate a product with 5 x 4 columns and one addition to each are left; the rest, for 5 past items, is done once.
    assert flops(made) <= 100 * (2 * 3 * 20 + 20) + 500


def test_what_compares_candidates_with_one_another_stays() -> None:
    text = """(float[rows,3] user, float[rows,3] item) => (float[rows,3] score)
        { share = Softmax<axis = 0>(user)   score = Mul(share, item) }"""
    model = graph(text, opset=20)
    of = signature(model, request="user")
    made = hoist(model, of)
    rows = {"user": np.ones((4, 3), np.float32), "item": np.ones((4, 3), np.float32)}
    once = {**rows, "user": rows["user"][:1]}
    # Every one of four equal rows has a share of a quarter: a softmax over one row would give 1.
    assert session(made.model, made.signature).run(once)["score"].tolist() == [[0.25] * 3] * 4


def test_only_the_position_that_is_read_is_computed() -> None:
    made = hoisted(
        """(float[rows,50,8] past, float[rows,8] item) => (float[rows,8] score)
        <float[8,8] w = {}, int64 last = {-1}>
        { hidden = MatMul(past, w)   state = Gather<axis = 1>(hidden, last)   score = Mul(state, item) }""",
        "past",
    )
    # One row of the product instead of 50, and one multiplication per candidate and unit.
    assert flops(made) == 2 * 8 * 8 + 100 * 8


def test_copies_are_gathered_from_the_first() -> None:
    made = hoisted(
        """(float[rows,5,8] past, int64[rows,1] last, float[rows,8] item) => (float[rows,8] score)
        <int64 zero = {0}, int64 step = {1}, int64[1] end = {-1}, float[8,8] w = {}>
        {
            hidden = MatMul(past, w)   shape = Shape<end = 1>(item)   count = Squeeze(shape)   all = Range(zero, count, step)
            column = Unsqueeze(all, end)   place = Concat<axis = -1>(column, last)   state = GatherND(hidden, place)
            score = Mul(state, item)
        }""",
        "past last",
    )
    assert "Range" not in operators(made)
    assert flops(made) < 2 * 5 * 8 * 8 + 100 * 8 + 100


def test_subgraphs_and_other_peoples_operators_get_what_they_got() -> None:
    text = """(float[rows,3] user, float[rows,3] item, bool flag) => (float[rows,3] score)
        {
            score = If(flag) <then_branch = yes () => (float[rows,3] a) { a = Add(user, item) },
                              else_branch = no () => (float[rows,3] b) { b = Softmax<axis = 0>(user) }>
        }"""
    model = graph(text, opset=20)
    roles: dict[str, Role] = {"user": "request", "item": "candidate"}
    inputs = tuple(InputSpec(name=name, dtype="float32", shape=("rows", 3), role=role) for name, role in roles.items())
    of = Signature(inputs=inputs, outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 3)),))
    made = hoist(model, of)
    run = session(made.model, made.signature)
    given = {"user": np.zeros((1, 3), np.float32), "item": np.ones((2, 3), np.float32)}
    assert run.run({**given, "flag": np.array(True)})["score"].tolist() == [[1.0] * 3] * 2
    assert run.run({**given, "flag": np.array(False)})["score"].tolist() == [[0.5] * 3] * 2


def random_signature() -> Signature:
    def spec(name: str, dtype: str, *shape: int | str, table: int | None = None) -> InputSpec:
        role: Role = "request" if name in RandomRanker.request else "candidate"
        return InputSpec(name=name, dtype=dtype, shape=("rows", *shape), role=role, rows_of_table=table)

    return Signature(
        inputs=(
            spec("user", "int64", table=USERS),
            spec("history", "int64", "past", table=ITEMS),
            spec("context", "float32", WIDTH),
            spec("item", "int64", table=ITEMS),
            spec("price", "float32", WIDTH),
        ),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_random_rankers_score_as_before_for_rows_of_several_requests(seed: int) -> None:
    proto = RandomRanker(seed).model()
    of = random_signature()
    made = hoist(ir.from_proto(proto), of)
    before, after = session(proto, of), session(made.model, made.signature)
    for requests, candidates, past in ((1, 1, 1), (3, 2, 4), (1, 17, 3)):
        rows = feeds(np.random.default_rng(seed), requests, candidates, past)
        np.testing.assert_allclose(after.run(rows)["score"], before.run(rows)["score"], rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 10**6))
def test_random_rankers_whose_candidates_see_one_another_score_as_before(seed: int) -> None:
    proto = RandomRanker(seed, mixing=True).model()
    of = random_signature()
    made = hoist(ir.from_proto(proto), of)
    before, after = session(proto, of), session(made.model, made.signature)
    for candidates, past in ((1, 2), (9, 3)):
        rows = feeds(np.random.default_rng(seed), 1, candidates, past)
        np.testing.assert_allclose(after.run(rows)["score"], before.run(rows)["score"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_random_ranker_gets_more_work(seed: int) -> None:
    model, of = ir.from_proto(RandomRanker(seed).model()), random_signature()
    made = hoist(model, of)
    sizes = sizes_of(of, candidates=256)
    assert cost_of(made.model, made.signature, sizes).flops.total <= cost_of(model, of, sizes).flops.total


def same_scores(text: str, request: str, lengths: tuple[int, ...], width: int = 3) -> None:
    """The graph and what hoisting makes of it give the same at these lengths, on rows of one request."""
    model = graph(text, opset=20)
    of = signature(model, request=request)
    made = hoist(model, of)
    before, after = session(model, of), session(made.model, made.signature)
    random = np.random.default_rng(0)
    for length in lengths:
        rows = {}
        for spec in of.inputs:
            shape = tuple(width if isinstance(dim, int) else length for dim in spec.shape[1:])
            values = random.normal(size=(1 if spec.role == "request" else 4, *shape)).astype(np.float32)
            rows[spec.name] = np.repeat(values, 4, axis=0) if spec.role == "request" else values
        np.testing.assert_allclose(after.run(rows)["score"], before.run(rows)["score"], rtol=1e-5, atol=1e-5)


CUT = "<int64[1] start = {-20}, int64[1] end = {9223372036854775807}, int64[1] one = {1}, int64[1] last = {-1}"


def test_a_history_cut_to_its_last_twenty_items_may_be_shorter() -> None:
    weights = ", ".join(str((number * 7) % 5 - 2) for number in range(36))
    text = f"""(float[rows,hist,3] past, float[rows,3] item) => (float[rows,4] score)
        {CUT}, float[9,4] w = {{{weights}}}, float[4] b = {{1, 2, 3, 4}}>
        {{
            cut = Slice(past, start, end, one)   q = Unsqueeze(item, one)   shape = Shape(cut)   wide = Expand(q, shape)
            times = Mul(wide, cut)   both = Concat<axis = -1>(wide, cut, times)   product = MatMul(both, w)   sum = Add(product, b)
            active = Relu(sum)   score = ReduceSum<keepdims = 0>(active, one)
        }}"""
    same_scores(text, "past", (1, 10, 12, 40))


def test_a_slice_of_a_concatenation_with_something_cut_keeps_its_place() -> None:
    text = f"""(float[rows,hist,3] past, float[rows,3] item) => (float[rows,1,3] score) {CUT}>
        {{
            cut = Slice(past, start, end, one)   q = Unsqueeze(item, one)   both = Concat<axis = 1>(q, cut)
            final = Slice(both, last, end, one)   score = Mul(final, q)
        }}"""
    same_scores(text, "past", (10, 12, 40))


def test_attention_over_items_beside_a_users_number_is_split() -> None:
    weights = ", ".join(str((number * 3) % 5 - 2) for number in range(36))
    text = f"""(float[rows,5,3] past, float[rows,3] user, float[rows,3] item) => (float[rows,5,4] score)
        <int64[1] one = {{1}}, float[9,4] w = {{{weights}}}, float[4] b = {{1, 2, 3, 4}}>
        {{
            q = Unsqueeze(item, one)   shape = Shape(past)   wide = Expand(q, shape)   times = Mul(wide, past)
            u = Unsqueeze(user, one)   all = Expand(u, shape)
            both = Concat<axis = -1>(wide, times, all)   product = MatMul(both, w)   score = Add(product, b)
        }}"""
    made = hoisted(text, "past user")
    assert "Gemm" in operators(made)
    model = graph(text, opset=20)
    before, after = session(model, signature(model, request="past user")), session(made.model, made.signature)
    random = np.random.default_rng(0)
    past, user = (np.repeat(random.normal(size=(1, *shape)).astype(np.float32), 4, axis=0) for shape in ((5, 3), (3,)))
    rows = {"past": past, "user": user, "item": random.normal(size=(4, 3)).astype(np.float32)}
    np.testing.assert_allclose(after.run(rows)["score"], before.run(rows)["score"], rtol=1e-5, atol=1e-5)


def test_a_slice_with_steps_is_not_one_position() -> None:
    text = """(float[rows,hist,3] past, float[rows,3] item) => (float[rows,hist2,3] score)
        <int64[1] zero = {0}, int64[1] end = {9223372036854775807}, int64[1] one = {1}, int64[1] step = {4}>
        { active = Relu(past)   some = Slice(active, zero, end, one, step)   q = Unsqueeze(item, one)   score = Mul(some, q) }"""
    same_scores(text, "past", (3, 4, 9))


def test_writing_to_some_rows_writes_to_those_rows() -> None:
    text = """(float[rows,3] user, float[rows,3] item) => (float[rows,3] score) <int64[1,1] index = {0}, float[1,1] written = {9}>
        { changed = ScatterElements<axis = 1>(user, index, written)   score = Mul(changed, item) }"""
    same_scores(text, "user", (1,))


@pytest.mark.parametrize(("equation", "axes"), [("rts,sd->rtd", "1, 2"), ("rts,rus->rtu", "1, 2"), ("rts,rts->rt", "1")])
def test_einsum_over_request_inputs_is_done_once(equation: str, axes: str) -> None:
    second = "w" if "sd" in equation else "past"
    text = f"""(float[rows,hist,3] past, float[rows,3] item) => (float[rows,3] score)
        <float[3,3] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, int64[{len(axes.split(","))}] axes = {{{axes}}}, int64[1] last = {{1}}>
        {{
            mixed = Einsum<equation = "{equation}">(past, {second})   mean = ReduceMean<keepdims = 0>(mixed, axes)
            one = Unsqueeze(mean, last)   score = Mul(one, item)
        }}"""
    same_scores(text, "past", (2, 6))
    assert "Expand" not in operators(hoisted(text, "past"))


def test_selections_in_two_axes_come_to_an_end() -> None:
    text = """(float[rows,hist,3] past, float[rows,3] item) => (float[rows,1] score)
        <int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}>
        { active = Relu(past)   first = Slice(active, zero, one, one)   column = Slice(first, zero, one, two)
          some = Squeeze(column, two)   whole = ReduceSum<keepdims = 1>(item, one)   score = Mul(some, whole) }"""
    same_scores(text, "past", (1, 5))


def test_a_flattened_attention_is_split_like_one_that_is_not() -> None:
    first, second = (", ".join(str((number * step) % 5 - 2) for number in range(count)) for step, count in ((3, 48), (7, 4)))
    text = f"""(float[rows,hist,3] past, float[rows,3] item) => (float[rows,hist,1] score)
        <int64[1] one = {{1}}, float[12,4] w = {{{first}}}, float[4] b = {{1, 2, 3, 4}}, float[4,1] v = {{{second}}}, float[1] c = {{1}},
         int64[2] flat = {{-1, 12}}, int64[1] end = {{1}}>
        {{
            q = Unsqueeze(item, one)   shape = Shape(past)   wide = Expand(q, shape)   minus = Sub(wide, past)   times = Mul(wide, past)
            both = Concat<axis = -1>(wide, past, minus, times)   rows_of = Reshape(both, flat)   hidden = Gemm(rows_of, w, b)
            active = Sigmoid(hidden)   out = Gemm(active, v, c)   lead = Shape<end = 2>(past)   target = Concat<axis = 0>(lead, end)
            score = Reshape(out, target)
        }}"""
    same_scores(text, "past", (1, 2, 7))
    made = hoisted(text, "past")
    assert made.applied["linear_of_flat"]
    assert "Concat" not in [node.op_type for node in made.model.graph if len(node.inputs) > 3]
