from __future__ import annotations

import pytest
from liftgate.core.estimate import Estimate
from liftgate.reports import numbers


def test_digits_follow_the_value() -> None:
    assert [numbers.ms(v) for v in (0.0421, 4.256, 42.13, 421.3, 4213.2)] == ["0.042", "4.26", "42.1", "421", "4,213"]


def test_bounds_have_as_many_decimals_as_their_value() -> None:
    estimate = Estimate(value=9.96, low=9.7, high=10.31, n=20)
    assert numbers.with_interval(estimate, numbers.ms_format(estimate)) == "9.96 [9.70, 10.31]"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(value=None, low=None, high=None, n=0), "unknown"),
        (Estimate(value=1.5, low=None, high=None, n=1), "1.500 [unknown]"),
        (Estimate(value=1.5, low=None, high=1.75, n=3), "1.500 [unknown, 1.750]"),
    ],
)
def test_what_is_not_known_is_said_and_never_a_zero(estimate: Estimate, text: str) -> None:
    assert numbers.with_interval(estimate, numbers.fixed(3)) == text


def test_unknown_counts_sizes_and_times_are_unknown() -> None:
    assert {numbers.count(None), numbers.size(None), numbers.ms(None), numbers.p_value(None), numbers.middle_ms(())} == {"unknown"}


def test_sizes_are_binary() -> None:
    assert [numbers.size(v) for v in (512, 1536, 6_400_000, 226 * 2**20, 3 * 2**30)] == [
        "512 B",
        "1.5 KiB",
        "6.1 MiB",
        "226 MiB",
        "3.00 GiB",
    ]


def test_a_change_has_a_sign_unless_it_rounds_to_nothing() -> None:
    show = numbers.signed(1, scale=100, suffix=" %")
    assert [show(v) for v in (0.05, -0.012, 0.0004, -0.0004)] == ["+5.0 %", "\u22121.2 %", "0.0 %", "0.0 %"]


def test_rounding_never_leaves_a_negative_zero() -> None:
    assert numbers.fixed(2)(-0.001) == "0.00"


def test_small_p_values_keep_their_power_of_ten() -> None:
    assert [numbers.p_value(v) for v in (0.0312, 0.00042, 3e-9, 0.0)] == ["0.031", "4e-4", "3e-9", "< 1e-12"]


def test_durations_read_like_a_clock() -> None:
    assert [numbers.duration(s) for s in (4.26, 48.2, 214.6, 3905.0)] == ["4.3 s", "48 s", "3 min 35 s", "1 h 05 min"]
