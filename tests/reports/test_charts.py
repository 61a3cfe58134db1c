from __future__ import annotations

import random
import re
from itertools import combinations
from xml.etree import ElementTree

import pytest
from liftgate.core.estimate import Estimate
from liftgate.reports import charts
from liftgate.reports.labels import Box, place
from liftgate.reports.limits import LimitLine
from liftgate.reports.svg import CHAR, hue, shorten

SVG = "{http://www.w3.org/2000/svg}"


def est(value: float | None, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=20)


def test_a_curve_goes_through_its_hand_computed_steps() -> None:
    # 1 ms to 100 ms with 2 % to spare on both sides over 58..744 px: ln(10*1.02)/ln(100*1.0404) = 0.5 -> x = 401.
    curve = charts.Curve(name="v1.0", series=0, ms=(1.0, 10.0, 100.0), share=(0.25, 0.75, 1.0))
    svg = str(charts.ecdf([curve], title="t"))
    # The legend takes one row (20 px), so the plot runs from y = 60 (100 %) to y = 330 (0 %).
    assert "H401.0V127.5" in svg
    assert "V262.5" in svg and "V60.0" in svg


def test_a_forest_draws_the_line_of_no_change_where_the_scale_puts_it() -> None:
    rows = [charts.ForestRow(label="all", series=1, estimate=est(1.0, 0.9, 1.1), words="1.000 [0.900, 1.100]")]
    root = ElementTree.fromstring(str(charts.forest(rows, title="t", x_title="ratio", reference=1.0)))
    line = next(e for e in root.iter(f"{SVG}line") if e.get("class") == "reference")
    left, right = 16 + 3 * CHAR + 8, charts.WIDTH - 20 - 20 * CHAR
    assert float(line.get("x1", "")) == pytest.approx((left + right) / 2, abs=0.01)


def test_an_unknown_bound_is_a_dashed_arm_and_an_unknown_value_no_mark() -> None:
    rows = [
        charts.ForestRow(label="a", series=1, estimate=est(1.0, None, 1.1), words="w"),
        charts.ForestRow(label="b", series=1, estimate=est(None, None, None), words="unknown"),
    ]
    svg = str(charts.forest(rows, title="t", x_title="x", reference=1.0))
    assert svg.count("bar s1 open") == 1
    assert svg.count("mark s1") == 1
    assert ">unknown<" in svg


def test_charts_of_nothing_are_nothing() -> None:
    nothing = est(None, None, None)
    point = charts.Point(name="m", series=0, x=nothing, y=est(0.3, 0.2, 0.4))
    assert charts.scatter([point], title="t", x_title="x", y_title="y") == ""
    assert charts.forest([charts.ForestRow(label="a", series=0, estimate=nothing, words="")], title="t", x_title="", reference=1.0) == ""
    assert charts.rounds([charts.RoundSeries(name="m", series=1, ratios=(), estimate=nothing)], title="t", y_title="y") == ""
    assert charts.ecdf([], title="t") == ""


@pytest.mark.parametrize(("limit", "anchor"), [(1.1, "start"), (9.0, "end")])
def test_the_name_of_a_limit_on_latency_stays_inside_the_plot(limit: float, anchor: str) -> None:
    points = [charts.Point(name=f"v{x}", series=0, x=est(x, x, x), y=est(0.3, 0.2, 0.4)) for x in (1.0, 10.0)]
    line = LimitLine(axis="x", value=limit, name="latency_p95 max_regress 10% on local")
    root = ElementTree.fromstring(str(charts.scatter(points, title="t", x_title="x", y_title="y", limits=[line])))
    assert [e.get("text-anchor") for e in root.iter(f"{SVG}text") if e.text == line.name] == [anchor]


def test_every_round_is_a_point_in_time_order() -> None:
    series = charts.RoundSeries(name="m", series=2, ratios=(0.9, 1.1, 1.0), estimate=est(1.0, 0.95, 1.05))
    root = ElementTree.fromstring(str(charts.rounds([series], title="t", y_title="y")))
    titles = [e.findtext(f"{SVG}title") for e in root.iter(f"{SVG}rect") if "mark" in e.get("class", "")]
    assert titles == ["m, round 1: 0.900", "m, round 2: 1.100", "m, round 3: 1.000"]


def test_names_of_close_points_do_not_cover_each_other() -> None:
    noise = random.Random(3)
    area = Box(60.0, 30.0, 740.0, 350.0)
    points = [(300 + noise.gauss(0, 25), 180 + noise.gauss(0, 18)) for _ in range(9)]
    boxes = place(points, [90.0] * 9, [], area)
    assert all(box.within(area) for box in boxes)
    assert max(a.overlap(b) for a, b in combinations(boxes, 2)) == 0.0


def test_the_nearest_place_is_beside_the_point() -> None:
    (box,) = place([(100.0, 100.0)], [50.0], [], Box(0.0, 0.0, 400.0, 400.0))
    assert box == Box(110.0, 93.0, 160.0, 107.0)


def test_a_label_stays_inside_the_plot() -> None:
    (box,) = place([(390.0, 100.0)], [50.0], [], Box(0.0, 0.0, 400.0, 400.0))
    assert box == Box(330.0, 93.0, 380.0, 107.0)


def test_text_in_a_chart_is_escaped() -> None:
    curve = charts.Curve(name='<script>alert("x")</script>', series=0, ms=(1.0, 2.0), share=(0.5, 1.0))
    svg = str(charts.ecdf([curve], title='"><script>'))
    assert "<script" not in svg
    assert ElementTree.fromstring(svg).get("aria-label") == '"><script>'


def test_long_names_are_cut_in_the_middle() -> None:
    assert shorten("v1.1-distilled-pruned-int8-warm", 21) == "v1.1-disti…-int8-warm"


def test_only_the_control_is_grey() -> None:
    assert [hue(i) for i in (0, 1, 7, 8, 15)] == ["s0", "s1", "s7", "s1", "s1"]


def test_every_chart_says_its_axes_with_units() -> None:
    points = [charts.Point(name="m", series=0, x=est(10.0, 9.0, 11.0), y=est(0.3, 0.2, 0.4))]
    svg = str(charts.scatter(points, title="t", x_title="p95 service time, ms", y_title="ndcg@10"))
    assert re.findall(r'class="axis-title"[^>]*>([^<]+)<', svg) == ["p95 service time, ms", "ndcg@10"]
