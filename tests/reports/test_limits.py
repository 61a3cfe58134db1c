from __future__ import annotations

import msgspec
import pytest
from liftgate.core.verdict import Finding, Outcome, judge
from liftgate.profile.budget import parse_budget
from liftgate.profile.result import Comparison
from liftgate.reports.html import html
from liftgate.reports.limits import LimitLine, limit_lines, near
from liftgate.reports.result import Report

BUDGET = """
[[gate]]
metric = "latency_p95"
instance = "local"
max = "200 ms"

[[gate]]
metric = "latency_p95"
instance = "m5.large"
max_regress = "10%"

[[gate]]
metric = "latency_p99"
instance = "m5.large"
max = "1 s"

[[gate]]
metric = "ndcg@10"
max_drop = "2%"

[[gate]]
metric = "ndcg@10"
segment = "casual"
max_drop = "1%"

[[gate]]
metric = "ndcg@10"
min = "0.25"

[[gate]]
metric = "size"
max = "32 MiB"
"""


@pytest.fixture
def budgeted(story_comparison: Comparison) -> Comparison:
    """The story with findings named as the profile room names its gates."""
    gates = parse_budget(BUDGET).gates
    verdict = judge(Finding(outcome=Outcome.PASS, gate=gate.name, reason="kept") for gate in gates)
    candidates = tuple(msgspec.structs.replace(c, verdict=verdict) for c in story_comparison.candidates)
    return msgspec.structs.replace(story_comparison, candidates=candidates)


def test_an_absolute_gate_is_a_line_on_its_instance_only(budgeted: Comparison) -> None:
    lines = limit_lines(budgeted, budgeted.instances[0], "p95", "ndcg@10")
    assert [line for line in lines if line.axis == "x"] == [LimitLine(axis="x", value=200.0, name="latency_p95 max 200 ms on local")]


def test_a_relative_gate_is_multiplied_out_with_the_control(budgeted: Comparison) -> None:
    lines = limit_lines(budgeted, budgeted.instances[1], "p95", "ndcg@10")
    # The control's p95 on m5.large is 150 ms * 1.34 = 201 ms, its ndcg@10 0.3121.
    assert [(line.axis, round(line.value, 6)) for line in lines] == [("x", 221.1), ("y", 0.305858), ("y", 0.25)]


def test_gates_of_a_segment_or_of_another_quantile_draw_nothing(budgeted: Comparison) -> None:
    names = {line.name for i in budgeted.instances for line in limit_lines(budgeted, i, "p95", "ndcg@10")}
    assert not any("casual" in name or "p99" in name or "size" in name for name in names)


def test_names_that_no_gate_has_draw_nothing(story_comparison: Comparison) -> None:
    assert limit_lines(story_comparison, story_comparison.instances[0], "p95", "ndcg@10") == ()


def test_a_far_line_is_told_and_not_drawn(budgeted: Comparison) -> None:
    far = LimitLine(axis="x", value=1000.0, name="far")
    close = LimitLine(axis="x", value=12.0, name="close")
    assert near([far, close], [5.0, 10.0], [0.3]) == (close,)
    source = html(Report(comparison=budgeted))
    assert "Budget lines outside the plot: ndcg@10 min 0.25 (at 0.25)." in source
    assert source.count('class="zone"') == 4  # latency and max_drop, on each instance
