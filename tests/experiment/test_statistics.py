from __future__ import annotations

import math

import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.core.multiplicity import holm
from liftgate.experiment.plan import plan
from liftgate.experiment.statistics import RatioSums, difference, null_difference, ratio_estimate, sample_ratio_p, users_per_arm
from scipy import stats


def sums_of(clicks: np.ndarray, impressions: np.ndarray) -> RatioSums:
    return RatioSums(
        users=len(clicks),
        c=float(clicks.sum()),
        k=float(impressions.sum()),
        cc=float((clicks**2).sum()),
        kk=float((impressions**2).sum()),
        ck=float((clicks * impressions).sum()),
    )


def mean_sums(total: float, squares: float, n: int) -> RatioSums:
    """A mean is a ratio with one impression per user."""
    return RatioSums(users=n, c=total, k=n, cc=squares, kk=n, ck=total)


def test_the_difference_agrees_with_gbstats() -> None:
    # growthbook/packages/stats/tests/frequentist/test_tests.py::TestTwoSidedTTest
    found = difference(mean_sums(1396.87, 52377.9767, 3407), mean_sums(2422.7, 134698.29, 3461), level=0.95)
    assert found.relative.value == pytest.approx(0.70732, abs=1e-5)
    assert found.relative.low == pytest.approx(-0.03526, abs=1e-5)
    assert found.relative.high == pytest.approx(1.44989, abs=1e-5)
    assert found.p_value == pytest.approx(0.06191, abs=1e-5)
    assert found.absolute.value == pytest.approx(0.29, abs=1e-5)


def test_seven_users_by_hand() -> None:
    # R = 5/14, mean(k) = 2, e = c - R k in fourteenths: (9, 4, -10, 13, -1, -10, -5); squares sum to 492/196.
    clicks, impressions = np.array([1, 1, 0, 2, 1, 0, 0.0]), np.array([1, 2, 2, 3, 3, 2, 1.0])
    sums = sums_of(clicks, impressions)
    assert sums.ratio == 5 / 14
    assert sums.user_variance == pytest.approx((492 / 196) / 6 / 4)
    assert ratio_estimate(sums, level=0.95).n == 7


def test_sums_of_two_halves_add_to_the_whole() -> None:
    rng = np.random.default_rng(0)
    impressions = rng.integers(1, 30, 500).astype(float)
    clicks = rng.binomial(impressions.astype(int), 0.05).astype(float)
    assert sums_of(clicks[:200], impressions[:200]) + sums_of(clicks[200:], impressions[200:]) == sums_of(clicks, impressions)


def test_identical_rows_within_a_user_have_their_number_as_design_effect() -> None:
    # Every user sees 10 items and clicks all or none: ten impressions carry the information of one.
    clicks = np.array([10.0] * 200 + [0.0] * 800)
    assert sums_of(clicks, np.full(1000, 10.0)).design_effect == pytest.approx(10, rel=0.002)


@pytest.mark.parametrize(
    "sums",
    [
        RatioSums(),
        RatioSums(users=1, c=1, k=4, cc=1, kk=16, ck=4),
        RatioSums(users=5, c=0, k=20, cc=0, kk=80, ck=0),
        RatioSums(users=3, c=3, k=30, cc=3, kk=300, ck=30),
    ],
    ids=["nobody", "one user", "no clicks", "no variation"],
)
def test_what_the_data_cannot_give_is_none(sums: RatioSums) -> None:
    good = sums_of(np.array([1.0, 0, 2, 1]), np.array([3.0, 4, 5, 6]))
    assert (ratio_estimate(sums, level=0.95).low, ratio_estimate(sums, level=0.95).high) == (None, None)
    for found in (difference(good, sums, level=0.95), difference(sums, good, level=0.95)):
        assert (found.relative.low, found.relative.high, found.p_value) == (None, None, None)


def test_the_articles_difference_needs_three_hundred_thousand_impressions_per_arm() -> None:
    # 2.0 against 1.9 %, two-sided 5 %, 80 % power: 300,136 with the pooled variance under the null; without it, as here, 300,134.
    assert users_per_arm(0.02 * 0.98, 0.019 * 0.981, 0.001, alpha=0.05, power=0.8) == pytest.approx(300_136, rel=1e-4)
    found = plan(baseline=0.02, effect=-0.05, design_effect=2.0, impressions_per_user=10)
    assert found.impressions_per_arm == pytest.approx(2 * 300_136, rel=1e-4)
    assert found.users_per_arm == pytest.approx(2 * 30_013.6, rel=1e-4)


def test_power_at_the_computed_size_agrees_with_statsmodels() -> None:
    # statsmodels/stats/tests/test_proportion.py::test_power_2indep: 550 per arm, rates .001 and .015, power .7415600 (Stata).
    assert users_per_arm(0.001 * 0.999, 0.015 * 0.985, 0.014, alpha=0.05, power=0.74156) == pytest.approx(550, rel=0.05)


def test_an_unequal_split_needs_the_same_standard_error() -> None:
    equal = users_per_arm(1.0, 1.0, 0.1, alpha=0.05, power=0.8)
    unequal = users_per_arm(1.0, 1.0, 0.1, alpha=0.05, power=0.8, ratio=9.0)
    assert 1 / unequal + 1 / (9 * unequal) == pytest.approx(2 / equal, rel=0.01)


def test_a_plan_refuses_rates_that_are_not_rates() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        plan(baseline=0.6, effect=1.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"effect": float("nan")},
        {"effect": float("inf")},
        {"effect": 1e-200},
        {"effect": 0.0},
        {"baseline": float("nan")},
        {"baseline": 1e-200},
        {"alpha": float("nan")},
        {"alpha": 1e-200},
        {"design_effect": float("nan")},
        {"design_effect": float("inf")},
        {"impressions_per_user": 1e-320},
    ],
    ids=str,
)
def test_a_plan_refuses_numbers_that_nothing_follows_from(changes: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        plan(**{"baseline": 0.02, "effect": 0.05, **changes})


def test_the_difference_under_the_null_is_the_score_test_when_every_user_sees_one_item() -> None:
    # Two by two: 40 of 1,000 against 4 of 500. R = 44/1500, z^2 = (0.032)^2 / (R (1 - R) (1/1000 + 1/500)), the chi-square without
    # correction (11.99), up to the factor N - 1 over N in the variance.
    control, treatment = mean_sums(40, 40, 1000), mean_sums(4, 4, 500)
    chi_square = float(stats.chi2_contingency([[40, 960], [4, 496]], correction=False).statistic)
    found = null_difference(control, treatment, level=0.95)
    assert chi_square == pytest.approx(11.99, abs=0.01)
    assert found.p_value == pytest.approx(2 * stats.t.sf(math.sqrt(chi_square * 1499 / 1500), 1498), rel=1e-9)
    assert found.absolute.value == pytest.approx(-0.032)
    assert found.relative.value == pytest.approx(-0.8)
    assert found.absolute.low is not None and found.absolute.high is not None
    assert (found.absolute.high - found.absolute.low) / 2 == pytest.approx(1.9615 * 0.032 / math.sqrt(11.99), rel=1e-3)
    assert (found.relative.low, found.relative.high) == (None, None)


def test_false_alarms_stay_at_their_rate_under_the_null_variance() -> None:
    # The treatment has a tenth of the users and expects 12 clicks, which come in clusters; only runs with fewer than ten are judged so.
    rng = np.random.default_rng(11)
    alarms = 0
    for _ in range(1000):
        arms = []
        for users in (4000, 400):
            impressions = rng.geometric(1 / 5, users)
            clicks = rng.binomial(impressions, rng.beta(0.06, 9.94, users))
            arms.append(sums_of(clicks.astype(float), impressions.astype(float)))
        p = null_difference(arms[0], arms[1], level=0.95).p_value if arms[1].c < 10 else None
        alarms += p is not None and p < 0.05
    # One side of a two-sided 5 %: 25 of 1,000, standard deviation 4.9.
    assert alarms <= 25 + 3 * 4.9


def test_holm_by_hand() -> None:
    # multipletests([.01, .04, .03, .005], method="holm") -> .03, .06, .06, .02
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_sample_ratio_by_hand() -> None:
    # (5200 - 5100)^2 / 5100 * 2 = 3.9216 on one degree of freedom.
    assert sample_ratio_p([5200, 5000], [0.5, 0.5]) == pytest.approx(math.erfc((20_000 / 5100 / 2) ** 0.5))
    assert sample_ratio_p([0, 0], [0.5, 0.5]) is None


def test_false_alarms_stay_at_their_rate_where_a_users_impressions_resemble_each_other() -> None:
    rng = np.random.default_rng(7)
    runs, users = 400, 1000
    alarms = 0
    naive_alarms = 0
    for _ in range(runs):
        arms = []
        for _ in range(2):
            impressions = rng.geometric(1 / 20, users)
            clicks = rng.binomial(impressions, rng.beta(0.5, 9.5, users))
            arms.append(sums_of(clicks.astype(float), impressions.astype(float)))
        p = difference(arms[0], arms[1], level=0.95).p_value
        alarms += p is not None and p < 0.05
        rates = [arm.c / arm.k for arm in arms]
        pooled = sum(arm.c for arm in arms) / sum(arm.k for arm in arms)
        error = (pooled * (1 - pooled) * sum(1 / arm.k for arm in arms)) ** 0.5
        naive_alarms += abs(rates[1] - rates[0]) / error > 1.96
    # 5 % of 400 is 20, standard deviation 4.4; the z-test that ignores users alarms several times as often.
    assert 7 <= alarms <= 33
    assert naive_alarms > 3 * alarms
