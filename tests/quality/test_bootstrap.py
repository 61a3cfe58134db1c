from __future__ import annotations

import numpy as np
import pytest
from liftgate.quality.bootstrap import mean_over_users, paired_over_users
from scipy import stats


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=300)
    ours = mean_over_users(values, np.random.default_rng(2)).estimate()
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.06 * width)
    assert ours.value == pytest.approx(values.mean())
    assert ours.n == 300


def test_one_user_has_a_value_and_no_interval() -> None:
    found = mean_over_users(np.array([0.5]), np.random.default_rng(0)).estimate()
    assert (found.value, found.low, found.high, found.n) == (0.5, None, None, 1)


def test_no_users_have_no_value() -> None:
    found = mean_over_users(np.zeros(0), np.random.default_rng(0)).estimate()
    assert (found.value, found.low, found.n) == (None, None, 0)


def test_pairing_removes_what_users_have_in_common() -> None:
    rng = np.random.default_rng(4)
    control = rng.random(400)
    treatment = control + 0.01
    found = paired_over_users(control, treatment, np.random.default_rng(5))
    difference = found.difference.estimate()
    assert difference.value == pytest.approx(0.01)
    assert difference.low == pytest.approx(0.01)
    assert difference.high == pytest.approx(0.01)
    alone = found.control.estimate()
    assert alone.low is not None
    assert alone.high is not None
    assert alone.high - alone.low > 0.03


def test_equal_models_have_a_ratio_of_exactly_one() -> None:
    values = np.random.default_rng(6).random(50)
    ratio = paired_over_users(values, values.copy(), np.random.default_rng(7)).ratio.estimate()
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_a_control_of_zero_has_no_ratio() -> None:
    found = paired_over_users(np.zeros(30), np.ones(30), np.random.default_rng(8))
    assert (found.ratio.estimate().value, found.ratio.estimate().low) == (None, None)
    assert found.difference.estimate().value == 1.0


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(9)
    hits = 0
    for _ in range(150):
        found = mean_over_users(rng.beta(2, 5, size=80), rng).estimate()
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 2 / 7 <= found.high
    # 95 % nominal; three standard deviations of a binomial with 150 trials are 5.3 points.
    assert 0.88 <= hits / 150 <= 1.0
