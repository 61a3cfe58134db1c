from __future__ import annotations

import onnx_ir as ir
import pytest
from liftgate.optimize.cost.dependence import Dependence, Flow, flow_of, inlined

from .onnx_text import graph, signature


def classes(text: str, *, request: str = "user", functions: str = "") -> tuple[dict[str, Dependence], Flow]:
    """Class of every value that a node gives, subgraphs included."""
    model = inlined(graph(text, functions=functions))
    flow = flow_of(model, signature(model, request=request))
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    return {str(value.name): flow.of(value) for node in nodes for value in node.outputs}, flow


def test_a_value_is_what_the_least_shared_of_its_inputs_is() -> None:
    found, flow = classes(
        "(float[rows,4] user, float[rows,4] item) => (y) <float[4] w = {}> { a = Neg(w)  b = Mul(user, a)  c = Add(b, item)  y = Relu(c) }"
    )
    assert found == {"a": "constant", "b": "request", "c": "candidate", "y": "candidate"}
    (last,) = (value for value in flow.origins if value.name == "y")
    assert flow.inputs_of(last) == {"user", "item"}


def test_the_size_of_a_candidate_input_is_no_candidate_value() -> None:
    found, flow = classes(
        """(float[rows,4] user, float[rows,4] item) => (y) {
            doubled = Add(item, item)
            size = Shape(doubled)
            y = Expand(user, size)
        }"""
    )
    assert (found["size"], found["y"]) == ("constant", "request")
    counted = {value.name: flow.counts_rows(value) for value in flow.origins}
    assert (counted["size"], counted["y"], counted["doubled"]) == (True, True, False)


@pytest.mark.parametrize("node", ["i = NonZero(item)", "i = Unique(item)", "i = other.Mystery(item)"])
def test_a_size_that_candidate_numbers_decide_is_a_candidate_value(node: str) -> None:
    found, _ = classes(f"(float[rows,4] user, float[rows,4] item) => (y) {{ {node}  size = Shape(i)  y = Identity(size) }}")
    assert found["size"] == "candidate"


def test_what_a_loop_carries_takes_in_what_later_iterations_add() -> None:
    # The request input enters `b` only in the first iteration, the candidate input reaches `b` through `a` in the second.
    found, flow = classes(
        """(float[rows,4] user, float[rows,4] item) => (y) <int64 n = {3}, bool yes = {1}, float[1,4] zero = {}> {
            x, z = Loop(n, yes, zero, user) <body = s (int64 i, bool c, float[r,s] a, float[r,s] b) => (bool d, float[r,s] p, float[r,s] q)
            {
                d = Identity(c)
                p = Add(a, item)
                q = Add(a, b)
            }>
            y = Relu(z)
        }"""
    )
    assert (found["p"], found["q"], found["y"]) == ("candidate", "candidate", "candidate")
    (control,) = flow.control.values()
    assert control == frozenset()


def test_a_loop_that_stops_on_the_request_makes_its_results_request_values() -> None:
    found, flow = classes(
        """(float[rows,4] user, float[rows,4] item) => (y) <int64 n = {3}, bool yes = {1}, float[1,4] zero = {}> {
            y = Loop(n, yes, zero) <body = step (int64 i, bool c, float[r,s] a) => (bool d, float[r,s] p) {
                sum = ReduceSum<keepdims=0>(user)
                d = Cast<to=9>(sum)
                p = Neg(a)
            }>
        }"""
    )
    assert found["p"] == "constant"
    assert found["y"] == "request"
    assert [set(names) for names in flow.control.values()] == [{"user"}]


def test_the_condition_of_an_if_enters_its_result() -> None:
    found, _ = classes(
        """(float[rows,4] user, bool[1] item) => (y) {
            y = If(item) <then_branch = t () => (float[a,b] o) { o = Relu(user) }, else_branch = e () => (float[a,b] p) { p = Neg(user) }>
        }"""
    )
    assert (found["o"], found["y"]) == ("request", "candidate")


def test_functions_are_followed_where_they_are_called() -> None:
    functions = """<domain: "other", opset_import: ["" : 23]> Twice (a) => (b) { c = Relu(a)  b = Add(c, c) }"""
    found, _ = classes(
        "(float[rows,4] user, float[rows,4] item) => (y) { u = other.Twice(user)  i = other.Twice(item)  y = Mul(u, i) }",
        functions=functions,
    )
    assert (found["u"], found["i"]) == ("request", "candidate")


def test_random_numbers_are_shared_with_nobody() -> None:
    found, _ = classes("(float[rows,4] user, float[rows,4] item) => (y) { r = RandomNormal<shape=[1,4]>()  y = Add(user, r) }")
    assert found == {"r": "candidate", "y": "candidate"}
