from __future__ import annotations

import math

import numpy as np
import pytest
from liftgate.core.multiplicity import holm
from liftgate.core.verdict import Outcome
from liftgate.profile.statistics import (
    absolute_gate,
    design_effect,
    mean_gate,
    quantile_estimate,
    resampled_gate,
    t_interval,
)
from scipy import stats

MS = 1_000_000
Blocks = list[list[np.ndarray]]


def lognormal(
    rng: np.random.Generator, launches: int, rounds: int, requests: int, *, between: float = 0.0, median_ms: float = 1.0
) -> Blocks:
    return [
        [(np.exp(rng.normal(0, 0.2, requests) + rng.normal(0, between)) * MS).astype(np.int64) for _ in range(rounds)]
        for _ in range(launches)
    ]


def test_a_quantile_of_independent_requests_has_scipys_interval() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, 1001)) * MS
    # One request per round cannot be clustered, so the interval must be that of order statistics alone.
    blocks = [[np.array([v]) for v in values]]
    found = quantile_estimate(blocks, 0.9)
    theirs = np.asarray(stats.quantile_test(values / MS, p=0.9).confidence_interval(0.95))
    assert found.value == pytest.approx(900.1)
    assert found.low == pytest.approx(theirs[0], abs=1)
    assert found.high == pytest.approx(theirs[1], abs=1)
    assert found.n == 1000


def test_a_bound_beyond_the_sample_is_unknown() -> None:
    blocks = [[np.arange(1, 11) * MS, np.arange(1, 11) * MS]]
    found = quantile_estimate(blocks, 0.99)
    assert found.value == pytest.approx(10.0)
    assert found.high is None


def test_the_design_effect_of_identical_rounds_is_one() -> None:
    blocks = [[np.arange(1, 101) * MS] * 20]
    assert design_effect(blocks, 90 * MS, 0.05) == 1.0


def test_the_design_effect_of_all_or_nothing_rounds_is_by_hand() -> None:
    # 4 rounds of 10, 2 of them wholly above: each adds (10 - 5)^2 / (10 * 0.5 * 0.5) = 10 to chi-square, over 3 degrees of freedom.
    blocks = [[np.full(10, 2 * MS if i % 2 else MS) for i in range(4)]]
    expected = 40 / 3 * (stats.t.isf(0.05, 3) / stats.norm.isf(0.05)) ** 2
    assert design_effect(blocks, 1.5 * MS, 0.05) == pytest.approx(expected)


def test_a_disturbance_longer_than_a_stretch_counts_for_more_than_one_within_it() -> None:
    # 3 launches of 8 rounds of 10, two rounds wholly above, two not, and so on: 24 halves of 10 requests, 12 stretches of 20.
    blocks = [[np.full(10, 2 * MS if i % 4 < 2 else MS) for i in range(8)]] * 3
    halves, stretches, freedom = 24 * 25 * 24 / 23 / 60, 12 * 100 * 12 / 11 / 60, 2 / 5 * 11
    expected = (2 * stretches - halves) * (stats.t.isf(0.05, freedom) / stats.norm.isf(0.05)) ** 2
    assert design_effect(blocks, 1.5 * MS, 0.05) == pytest.approx(expected)


def test_a_few_stretches_are_neither_corrected_nor_called_alike() -> None:
    # 4 stretches of 20, of which 12, 8, 12 and 8 are above: 4 x 2^2 x 4/3 / 20 = 1.07, which 4 stretches cannot tell from none.
    blocks = [[np.array([2 * MS] * above + [MS] * (20 - above)) for above in (12, 8, 12, 8)]]
    assert design_effect(blocks, 1.5 * MS, 0.05) == pytest.approx(16 / 15 * (stats.t.isf(0.05, 3) / stats.norm.isf(0.05)) ** 2)


def test_launches_that_differ_weigh_by_their_requests() -> None:
    # One launch of 10 requests, all above, and one of 30, none above: (10 - 2.5)^2 + (0 - 7.5)^2 over 40 x 0.25 x 0.75, and over what such
    # deviations show of the variance, 1 - 2 (10^3 + 30^3) / (40 (10^2 + 30^2)) + (10^2 + 30^2) / 40^2 = 0.225.
    blocks = [[np.full(10, 2 * MS)], [np.full(10, MS)] * 3]
    # Satterthwaite: 1000^2 / (10^4 + 30^4) - 1 is below 1, so 1 degree of freedom.
    expected = 112.5 / 7.5 / 0.225 * (stats.t.isf(0.05, 1) / stats.norm.isf(0.05)) ** 2
    assert design_effect(blocks, 1.5 * MS, 0.05) == pytest.approx(expected)


def test_quantile_intervals_cover_although_rounds_differ() -> None:
    rng = np.random.default_rng(1)
    true_ms = math.exp(stats.norm.ppf(0.95) * math.hypot(0.2, 0.1))
    hits = 0
    for _ in range(150):
        found = quantile_estimate(lognormal(rng, 4, 15, 60, between=0.1), 0.95)
        hits += (found.low or 0.0) <= true_ms <= (found.high or math.inf)
    # 95 % nominal, three standard deviations of 150 trials are 5.3 points.
    assert hits / 150 >= 0.89


def test_a_latency_far_below_its_limit_passes_and_far_above_fails() -> None:
    blocks = lognormal(np.random.default_rng(6), 4, 20, 100, between=0.05)
    assert absolute_gate(blocks, 0.95, 3.0, 0.05).outcome is Outcome.PASS
    assert absolute_gate(blocks, 0.95, 1.2, 0.05).outcome is Outcome.FAIL


def test_noise_near_the_budget_is_undecided_and_says_how_much_more() -> None:
    blocks = lognormal(np.random.default_rng(7), 4, 20, 100, between=0.05)
    at_the_limit = float(np.quantile(np.concatenate([b for launch in blocks for b in launch]), 0.953)) / MS
    found = absolute_gate(blocks, 0.95, at_the_limit, 0.05)
    assert found.outcome is Outcome.UNDECIDED
    assert found.more is not None
    assert found.more > 5


def test_clustered_violations_at_the_limit_rarely_pass() -> None:
    rng = np.random.default_rng(8)
    true_ms = math.exp(stats.norm.ppf(0.95) * math.hypot(0.2, 0.1))
    passed = sum(absolute_gate(lognormal(rng, 4, 15, 60, between=0.1), 0.95, true_ms, 0.05).outcome is Outcome.PASS for _ in range(150))
    assert passed / 150 <= 0.11


def test_fewer_than_ten_rounds_decide_nothing() -> None:
    found = absolute_gate(lognormal(np.random.default_rng(9), 1, 9, 100), 0.95, 100.0, 0.05)
    assert (found.outcome, found.more) == (Outcome.UNDECIDED, 10 / 9)


def test_clean_rounds_pass_only_when_launches_agree() -> None:
    def launches(spread: float) -> Blocks:
        return [[np.full(20, int(MS * (1 + spread * i)))] * 16 for i in range(5)]

    assert absolute_gate(launches(0.01), 0.95, 2.0, 0.05).outcome is Outcome.PASS
    assert absolute_gate(launches(0.24), 0.95, 2.0, 0.05).outcome is Outcome.UNDECIDED


def test_the_binomial_test_is_scipys_when_nothing_is_clustered() -> None:
    # 60 rounds of 10 requests; the same single violation in every sixth round: 10 of 600, less spread than independent requests.
    blocks = [[np.array([MS] * 9 + [3 * MS if i % 6 == 0 else MS]) for i in range(60)]]
    found = absolute_gate(blocks, 0.95, 2.0, 0.05)
    assert found.outcome is Outcome.PASS
    assert found.p_fail == pytest.approx(stats.binomtest(10, 600, 0.05, alternative="greater").pvalue)


def test_the_mean_gate_is_a_one_sided_t_test() -> None:
    values = np.random.default_rng(10).normal(0.02, 0.05, 20)
    found = mean_gate(values, 0.05, 0.05)
    assert found.p_fail == pytest.approx(stats.ttest_1samp(values, 0.05, alternative="greater").pvalue)
    assert found.outcome is Outcome.PASS
    assert mean_gate(values, -0.05, 0.05).outcome is Outcome.FAIL


def test_one_value_decides_nothing() -> None:
    assert mean_gate(np.array([1.0]), 5.0, 0.05).outcome is Outcome.UNDECIDED
    assert t_interval(np.array([1.0]), 0.95) == (1.0, None, None)


def test_undecided_means_need_the_textbook_sample_size() -> None:
    values = np.array([-1.0, 1.0, -1.0, 1.0])
    found = mean_gate(values, 0.1, 0.05)
    deviation = float(values.std(ddof=1))
    needed = ((1.6448536 + 0.8416212) * deviation / 0.1) ** 2
    assert found.outcome is Outcome.UNDECIDED
    assert found.more == pytest.approx(needed / 4, rel=1e-5)


def test_a_floor_is_judged_by_percentiles() -> None:
    draws = np.linspace(0.90, 1.10, 2001)
    assert resampled_gate(1.0, draws, 0.90, 0.05, 100).outcome is Outcome.PASS
    assert resampled_gate(1.0, draws, 1.095, 0.05, 100).outcome is Outcome.FAIL
    assert resampled_gate(1.0, draws, 0.95, 0.05, 100).outcome is Outcome.UNDECIDED


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1, never decreasing.
    assert holm([0.04, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
