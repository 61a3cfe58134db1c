from __future__ import annotations

import pytest
from liftgate.reports.scale import Scale, spanning, spanning_ratios, tick_text


def test_a_linear_scale_puts_the_middle_in_the_middle() -> None:
    scale = Scale(low=100.0, high=300.0, start=60.0, end=460.0)
    assert (scale(100.0), scale(200.0), scale(300.0)) == (60.0, 260.0, 460.0)


def test_a_vertical_scale_grows_upwards() -> None:
    scale = Scale(low=0.0, high=1.0, start=300.0, end=20.0)
    assert scale(0.25) == 230.0


def test_a_log_scale_gives_every_decade_the_same_room() -> None:
    scale = Scale(low=1.0, high=100.0, start=0.0, end=200.0, kind="log")
    assert scale(10.0) == pytest.approx(100.0)
    assert scale(31.6227766) == pytest.approx(150.0)


def test_ticks_are_one_two_or_five_times_a_power_of_ten() -> None:
    assert Scale(low=127.0, high=233.0, start=0, end=1).ticks(6) == (140.0, 160.0, 180.0, 200.0, 220.0)
    assert Scale(low=0.297, high=0.343, start=0, end=1).ticks(6) == (0.3, 0.31, 0.32, 0.33, 0.34)
    assert Scale(low=-0.13, high=0.11, start=0, end=1).ticks(6) == (-0.1, -0.05, 0.0, 0.05, 0.1)


def test_log_ticks_thin_out_over_many_decades() -> None:
    assert Scale(low=0.9, high=1100.0, start=0, end=1, kind="log").ticks(9) == (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def test_a_log_axis_inside_one_decade_still_has_ticks() -> None:
    assert Scale(low=111.0, high=129.0, start=0, end=1, kind="log").ticks(5) == (115.0, 120.0, 125.0)


def test_equal_values_still_make_a_scale() -> None:
    scale = spanning([5.0, 5.0], 0.0, 100.0)
    assert scale(5.0) == pytest.approx(50.0)


def test_ratios_that_spread_widely_get_a_log_scale() -> None:
    assert spanning_ratios([0.9, 1.1], 100.0, 0.0).kind == "linear"
    wide = spanning_ratios([0.5, 8.0], 100.0, 0.0)
    assert wide.kind == "log"
    assert wide(2.0) == pytest.approx(50.0)  # the geometric middle of 0.5 and 8


def test_an_empty_domain_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="no log scale from 0"):
        Scale(low=0.0, high=1.0, start=0.0, end=1.0, kind="log")


def test_tick_labels_have_the_decimals_their_neighbours_need() -> None:
    ticks = (0.95, 1.0, 1.05)
    assert [tick_text(t, ticks) for t in ticks] == ["0.95", "1.00", "1.05"]
    assert tick_text(-2000.0, (-2000.0, 0.0)) == "\u22122,000"
