from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liftgate.core.errors import InputError
from liftgate.core.signature import Layout
from liftgate.optimize.cost.cost import Cost
from liftgate.optimize.cost.embeddings import Table
from liftgate.optimize.cost.sizes import read_dims, sizes_of

from .onnx_text import cost, graph, signature

TOWERS = """(float[{leading},4] user, float[rows,4] item) => (score)
    <float[4,8] wu = {{}}, float[8] bu = {{}}, float[4,8] wi = {{}}, float[4,8] extra = {{}}, int64[1] last = {{-1}}> {{
    hidden = Gemm(user, wu, bu)
    u = Relu(hidden)
    w = Add(wi, extra)
    i = MatMul(item, w)
    both = Mul(u, i)
    score = ReduceSum<keepdims=0>(both, last)
}}"""


def towers(leading: str = "rows", request: str = "user", layout: Layout = "rows") -> Cost:
    return cost(TOWERS.format(leading=leading), request=request, candidates=100, layout=layout)


def test_the_user_tower_is_request_only_and_cheap_once() -> None:
    flops = towers().flops
    # Per row: 2 * 4 * 8 and 8 for the bias, 8 for Relu; item: 2 * 4 * 8, 8 for Mul, 8 summed. The weights are added once: 4 * 8.
    assert (flops.request, flops.request_once) == (100 * 80, 80)
    assert flops.candidate == 100 * 80
    assert flops.constant == 32
    assert flops.total == 16_032
    assert flops.total_once == 8_112


def test_bytes_are_split_the_same_way() -> None:
    moved = towers().bytes
    weights = 4 * (4 * 8 + 8)
    # Gemm reads user rows of 4 and writes 8, Relu reads and writes 8.
    assert (moved.request, moved.request_once) == (100 * 4 * (4 + 8 + 16) + weights, 4 * 28 + weights)
    assert moved.constant == 3 * 4 * 32


def test_in_layout_request_the_user_tower_is_done_once_already() -> None:
    flops = towers("1", layout="request").flops
    assert (flops.request, flops.request_once, flops.candidate) == (80, 80, 8_000)


def test_without_roles_everything_counts_as_per_candidate() -> None:
    found = towers(request="")
    assert not found.roles_known
    assert (found.flops.request, found.flops.candidate) == (0, 16_000)


def test_sizes_of_other_inputs_do_not_make_a_tower_per_candidate() -> None:
    # Exporters write the number of rows as the size of whichever input comes first, here the item.
    text = """(float[rows] item, float[rows,2,3] history) => (score) <int64[1] minus = {-1}> {
        rows = Shape<start=0, end=1>(item)
        shape = Concat<axis=0>(rows, minus)
        flat = Reshape(history, shape)
        taste = ReduceMax<keepdims=0>(flat, minus)
        score = Mul(taste, item)
    }"""
    flops = cost(text, request="history").flops
    assert (flops.request, flops.candidate) == (60, 10)


def test_tables_say_their_size_and_which_inputs_index_them() -> None:
    text = """(int64[rows] user, int64[rows] item, int64[rows,t] history) => (score)
        <float[30,8] users = {}, float[50,8] items = {}, float[50,8] positions = {}, float[50] bias = {}, int64[1] one = {1},
         int64[2] ids = {0, 1}, int64 none = {0}, int64 step = {1}> {
        u = Gather(users, user)
        shifted = Add(item, one)
        i = Gather(items, shifted)
        h = Gather(items, history)
        b = Gather(bias, item)
        fixed = Gather(items, ids)
        length = Shape<start=1, end=2>(history)
        end = Squeeze(length)
        places = Range(none, end, step)
        p = Gather(positions, places)
        hp = Add(h, p)
        score = ReduceSum(hp)
    }"""
    found = {table.name: table for table in cost(text, request="user history").tables}
    assert found["items"] == Table(name="items", rows=50, width=8, dtype="float32", size_bytes=1600, indexed_by=("item", "history"))
    assert found["users"].indexed_by == ("user",)
    assert (found["bias"].rows, found["bias"].width) == (50, 1)
    assert found["positions"].indexed_by == ()


def test_weight_bytes_count_every_constant_once() -> None:
    assert towers().weight_bytes == 4 * (32 + 8 + 32 + 32) + 8


LOOP = """(float[rows,4] x, int64[rows,t] history) => (score) <float[4,4] w = {{}}, int64 five = {{5}}, bool yes = {{1}}> {{
    {count}
    z = Loop({trips}, yes, x) <body = step (int64 i, bool c, float[a,b] acc) => (bool d, float[a,b] next) {{
        {condition}
        m = MatMul(acc, w)
        next = {end}
    }}>
    score = ReduceSum<keepdims=0>(z)
}}"""
COUNT = "axis = Constant<value = int64 {1}>()  shape = Shape(history)  count = Gather(shape, axis)"
# Per iteration 2 * 10 * 4 * 4 and 40 for Relu; the sum at the end is 40.
ITERATION = 360


def loop(trips: str = "five", *, count: str = "", condition: str = "d = Identity(c)", end: str = "Relu(m)") -> Cost:
    return cost(LOOP.format(trips=trips, count=count, condition=condition, end=end), request="history", dims={"t": 7})


def test_a_loop_counts_as_often_as_it_runs() -> None:
    found = loop()
    assert found.flops.total == 5 * ITERATION + 40
    assert [(node.op, node.within, node.flops) for node in found.nodes if node.within][1:] == [("MatMul", "z", 1600), ("Relu", "z", 200)]


def test_a_loop_over_the_history_runs_as_often_as_the_history_is_long() -> None:
    assert loop("count", count=COUNT).flops.total == 7 * ITERATION + 40


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (loop(condition="s = ReduceSum<keepdims=0>(acc)  d = Cast<to=9>(s)"), "it stops on a condition"),
        (loop("sum", count="sum = ReduceMax<keepdims=0>(history)"), "the number of iterations depends on history"),
        (loop(end="Concat<axis=0>(acc, m)"), "'next' may change its shape"),
    ],
    ids=["condition", "count", "growing"],
)
def test_a_loop_nobody_can_count_is_unknown(found: Cost, reason: str) -> None:
    assert [(node.op, node.flops) for node in found.unknown] == [("Loop", None)]
    assert reason in found.unknown[0].unknown
    assert found.flops.uncounted == 1


def test_a_scan_runs_once_per_slice() -> None:
    text = """(float[rows,4] x, float[rows,6,4] history) => (score) {
        last, all = Scan<num_scan_inputs=1, scan_input_axes=[1], body = step (float[a,b] h, float[c,d] e) => (float[a,b] n, float[a,b] o) {
            n = Add(h, e)
            o = Neg(n)
        }>(x, history)
        score = ReduceSum<keepdims=0>(last)
    }"""
    assert cost(text, request="history").flops.total == 6 * (40 + 40) + 40


def test_the_scan_of_opset_8_is_unknown_and_no_crash() -> None:
    text = """(float[rows,4] x, float[rows,6,4] history) => (last, all) {
        last, all = Scan<num_scan_inputs=1, body = step (float[a,b] h, float[c,d] e) => (float[a,b] n, float[a,b] o) {
            n = Add(h, e)
            o = Neg(n)
        }>(, x, history)
    }"""
    assert [node.op for node in cost(text, opset=8).unknown] == ["Scan"]


BRANCHES = """(float[rows,4] x, bool[1] c) => (score) <float[4,4] w = {}, bool no = {0}> {
    y = If(CONDITION) <then_branch = t () => (float[a,b] o) { m = MatMul(x, w)  o = Relu(m) },
               else_branch = e () => (float[a,b] p) { p = Neg(x) }>
    score = ReduceSum<keepdims=0>(y)
}"""


def test_an_if_costs_as_much_as_its_costlier_branch() -> None:
    assert cost(BRANCHES.replace("CONDITION", "c"), request="x").flops.total == 360 + 40


def test_of_an_if_on_a_constant_only_the_branch_that_is_taken_counts() -> None:
    assert cost(BRANCHES.replace("CONDITION", "no"), request="x").flops.total == 40 + 40


def test_work_under_a_condition_of_the_candidates_is_per_candidate() -> None:
    found = cost(BRANCHES.replace("CONDITION", "c"), request="x")
    assert (found.flops.request, found.flops.candidate) == (0, 400)


def test_functions_cost_what_is_written_in_them() -> None:
    functions = """<domain: "other", opset_import: ["" : 23]> Twice (a) => (b) { c = Relu(a)  b = Add(c, c) }"""
    found = cost("(float[rows,4] x) => (y) { z = other.Twice(x)  y = other.Twice(z) }", functions=functions)
    assert found.flops.total == 4 * 40
    assert [node.op for node in found.nodes] == ["Relu", "Add", "Relu", "Add"]


def test_costliest_nodes_come_first() -> None:
    assert [node.op for node in towers().costliest(2)] == ["Gemm", "MatMul"]


def test_a_cost_survives_json() -> None:
    found = towers()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Cost) == found


NAMES = ("a", "b", "c")
OPERATORS = ("Add", "Mul", "Max", "Sub")


@st.composite
def graphs(draw: st.DrawFn) -> str:
    """Random graphs of three inputs and a weight, every value `[rows, 4]` or `[1, 4]`."""
    values = [*NAMES, "w"]
    lines = []
    for number in range(draw(st.integers(1, 12))):
        left, right = draw(st.sampled_from(values)), draw(st.sampled_from(values))
        lines.append(f"v{number} = {draw(st.sampled_from(OPERATORS))}({left}, {right})")
        values.append(f"v{number}")
    return f"(float[rows,4] a, float[rows,4] b, float[rows,4] c) => ({values[-1]}) <float[1,4] w = {{}}> {{ {'  '.join(lines)} }}"


@settings(max_examples=40, deadline=None)
@given(text=graphs(), request=st.sets(st.sampled_from(NAMES)))
def test_the_parts_add_up_and_roles_do_not_change_the_total(text: str, request: set[str]) -> None:
    found = cost(text, request=" ".join(sorted(request)))
    for split in (found.flops, found.bytes):
        assert split.request + split.candidate + split.constant == split.total
        assert split.request_once <= split.request
    assert found.flops.total == cost(text, request="a b c").flops.total
    assert found.flops.total == sum(node.flops or 0 for node in found.nodes)


def test_other_dimensions_are_50_unless_said_otherwise() -> None:
    spec = signature(graph("(int64[rows,t] history, float[rows,3] item) => (y) { y = Identity(item) }"))
    assert sizes_of(spec).dims == {"t": 50}
    assert sizes_of(spec, dims={"t": 7}).dims == {"t": 7}
    assert sizes_of(spec, dims={"history": 7}).dims == {"t": 7}


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"histoy": 7}, "unknown dimension 'histoy'"),
        ({"rows": 7}, "use --candidates"),
        ({"item": 7}, "expected an input with one dimension that varies besides rows, found shape"),
        ({"t": 0}, "--dim t: expected a size of at least 1, found 0"),
    ],
)
def test_dimensions_that_cannot_be_chosen_are_refused(dims: dict[str, int], message: str) -> None:
    spec = signature(graph("(int64[rows,t] history, float[rows,3] item) => (y) { y = Identity(item) }"))
    with pytest.raises(InputError, match=message):
        sizes_of(spec, dims=dims)


def test_dimensions_are_written_as_name_and_size() -> None:
    assert read_dims(["history=7", "words=3"]) == {"history": 7, "words": 3}
    for text in ("history", "history=", "=7", "history=-1", "history=many"):
        with pytest.raises(InputError, match="expected NAME=SIZE"):
            read_dims([text])
