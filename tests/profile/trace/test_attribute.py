from __future__ import annotations

import numpy as np
import pytest
from liftgate.profile.trace.attribute import OUTSIDE, Attribution, Paired, attribute, waterfall
from liftgate.profile.trace.explain import conclusion, join
from liftgate.profile.trace.matching import Pair, match_nodes
from liftgate.profile.trace.nodes import Node
from liftgate.profile.trace.times import Times

LAUNCHES, ROUNDS, SIZE = 4, 15, 8
BASE = {"gather": ("Gather", 20.0), "mul": ("Mul", 10.0), "dense": ("MatMul", 60.0)}


def node(name: str, op: str, shapes: str = "", size: int = 0) -> Node:
    return Node(name=name, op=op, shapes=shapes, parameter_bytes=size)


def model(nodes: dict[str, tuple[str, float]], rng: np.random.Generator, *, launch_noise: float = 0.05) -> Times:
    """Node times with noise of their own and of the process they are in, and 15 µs outside nodes."""
    launch = np.repeat(np.exp(rng.normal(0, launch_noise, LAUNCHES)), ROUNDS * SIZE)[:, None]
    count = LAUNCHES * ROUNDS * SIZE
    own = np.array([us for _, us in nodes.values()]) * launch * np.exp(rng.normal(0, 0.1, (count, len(nodes))))
    return Times(
        nodes=tuple(node(name, op) for name, (op, _) in nodes.items()),
        infer=own.sum(axis=1) + 15 * np.exp(rng.normal(0, 0.1, count)),
        own=own,
        request=np.arange(count),
        block=np.repeat(np.arange(LAUNCHES * ROUNDS), SIZE),
        lost=0,
        resolution_us=1.0,
    )


def compared(treatment: dict[str, tuple[str, float]], seed: int = 0, *, launch_noise: float = 0.05) -> Attribution:
    rng = np.random.default_rng(seed)
    a, b = model(BASE, rng, launch_noise=launch_noise), model(treatment, rng, launch_noise=launch_noise)
    launch = np.repeat(np.arange(LAUNCHES), ROUNDS * SIZE)
    return attribute(Paired(control=a, treatment=b, round=a.block, launch=launch), rng)


def test_a_slow_added_node_is_named_first_and_is_all_of_the_slow_down() -> None:
    found = compared({**BASE, "big": ("MatMul", 200.0)}, launch_noise=0.01)
    assert found.direction == "slower"
    first = found.nodes[0]
    assert (first.name, first.status, first.stands_out, first.control_us) == ("big", "new", True, None)
    assert first.share is not None
    assert first.share.value == pytest.approx(1.0, abs=0.02)
    assert [c.name for c in found.nodes if c.stands_out] == ["big"]
    assert found.operators[0].nodes == (1, 2)
    assert conclusion(found, "v1.0", "v1.1").startswith("v1.1 is slower than v1.0 by 20")
    assert "big (MatMul, new) " in conclusion(found, "v1.0", "v1.1")


def test_parts_add_up_to_the_whole() -> None:
    found = compared({**BASE, "mul": ("Mul", 40.0), "extra": ("Add", 7.0)})
    for parts in (found.nodes, found.operators):
        total = sum(c.difference_us.value or 0.0 for c in (*parts, found.outside))
        assert total == pytest.approx(found.difference_us.value)
    assert found.control_us.value is not None
    assert found.waterfall[0].start_us == pytest.approx(found.control_us.value)
    assert found.waterfall[-1].end_us == pytest.approx(found.treatment_us.value)


def test_a_removed_node_makes_it_faster() -> None:
    found = compared({name: spec for name, spec in BASE.items() if name != "dense"}, launch_noise=0.01)
    last = found.nodes[-1]
    assert (found.direction, last.name, last.status, last.treatment_us, last.stands_out) == ("faster", "dense", "removed", None, True)


def test_equal_models_have_no_operator_that_stands_out() -> None:
    # Processes of the same model differ by 5 %: launches have to agree before anything is named.
    found = [compared(BASE, seed) for seed in range(40)]
    named = [seed for seed, one in enumerate(found) if any(c.stands_out for c in (*one.nodes, *one.operators, one.outside))]
    assert len(named) <= 2
    quiet = next(one for one in found if one.direction == "no difference")
    assert conclusion(quiet, "v1.0", "v1.1").startswith("no operator stands out")
    assert all(c.share is None for c in quiet.nodes)


def test_a_difference_that_launches_cannot_confirm_is_not_called_none() -> None:
    rng = np.random.default_rng(0)
    a, b = model(BASE, rng, launch_noise=0.01), model({**BASE, "big": ("MatMul", 200.0)}, rng, launch_noise=0.01)
    found = attribute(Paired(control=a, treatment=b, round=a.block, launch=np.zeros(len(a.infer), dtype=np.int64)), rng)
    assert found.direction == "no difference"
    assert conclusion(found, "v1.0", "v1.1").endswith("too few launches agree to name one: raise --launches and --seconds")


def test_the_share_has_an_interval_that_holds_the_truth() -> None:
    # 30 of 40 µs are the multiplication's.
    found = compared({**BASE, "mul": ("Mul", 40.0), "dense": ("MatMul", 70.0)}, launch_noise=0.01)
    share = next(c.share for c in found.nodes if c.name == "mul")
    assert share is not None
    assert share.low is not None
    assert share.high is not None
    assert share.low <= 0.75 <= share.high


def test_time_outside_nodes_can_be_the_reason() -> None:
    rng = np.random.default_rng(0)
    a = model(BASE, rng, launch_noise=0.01)
    b = model(BASE, rng, launch_noise=0.01)
    slow = Times(**{**{f: getattr(b, f) for f in b.__struct_fields__}, "infer": b.infer + 100})
    launch = np.repeat(np.arange(LAUNCHES), ROUNDS * SIZE)
    found = attribute(Paired(control=a, treatment=slow, round=a.block, launch=launch), rng)
    assert found.outside.stands_out
    assert "outside nodes" in conclusion(found, "v1.0", "v1.1")
    assert found.outside.share is not None
    assert found.outside.share.value == pytest.approx(1.0, abs=0.02)


def test_the_tail_is_told_by_itself() -> None:
    found = compared({**BASE, "big": ("MatMul", 200.0)}, launch_noise=0.01)
    assert found.tail.requests == round(0.01 * LAUNCHES * ROUNDS * SIZE)
    assert found.tail.parts[0].name == "MatMul"
    assert (found.tail.control_us.value or 0) > (found.control_us.value or 0)


def test_a_waterfall_shows_eight_parts_the_others_together_and_outside_last() -> None:
    steps = waterfall(100.0, [(OUTSIDE, 5.0), *((f"n{i}", float(i)) for i in range(10))])
    assert [s.name for s in steps] == [*(f"n{i}" for i in range(9, 1, -1)), "2 others", OUTSIDE]
    assert (steps[0].start_us, steps[0].end_us, steps[-2].end_us, steps[-1].end_us) == (100.0, 109.0, 145.0, 150.0)


def test_nodes_are_matched_by_name_then_shape_then_order() -> None:
    control = [node("a", "Mul"), node("MatMul_1", "MatMul", "float[9]", 8), node("MatMul_2", "MatMul", "float[3]", 4), node("gone", "Tanh")]
    treatment = [
        node("MatMul_2", "MatMul", "float[9]", 8),  # counted on by an inserted node: a name of that kind proves nothing
        node("MatMul_3", "MatMul", "float[77]", 9),
        node("a", "Mul", "float[1]"),
        node("new", "Relu"),
    ]
    assert set(match_nodes(control, treatment)) == {
        Pair(0, 2, "name"),
        Pair(1, 0, "shape"),
        Pair(2, 1, "order"),
        Pair(3, None, ""),
        Pair(None, 3, ""),
    }


def test_a_node_of_the_same_name_that_grew_is_the_same_node() -> None:
    (pair,) = match_nodes([node("mlp/0", "Gemm", "float[64]", 256)], [node("mlp/0", "Gemm", "float[128]", 512)])
    assert pair == Pair(0, 0, "name")


def test_launches_are_joined_by_node_whatever_their_order() -> None:
    def one(names: list[str]) -> Times:
        own = np.array([[float(len(name)) for name in names]])
        nodes = tuple(node(name, "Mul") for name in names)
        zero = np.zeros(1, dtype=np.int64)
        return Times(nodes=nodes, infer=own.sum(axis=1), own=own, request=zero, block=zero, lost=1, resolution_us=1.0)

    found = join([one(["a", "bb"]), one(["bb", "ccc", "a"])])
    assert [n.name for n in found.nodes] == ["a", "bb", "ccc"]
    assert found.own.tolist() == [[1, 2, 0], [1, 2, 3]]
    assert (found.infer.tolist(), found.lost) == ([3, 6], 2)
