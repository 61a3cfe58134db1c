from __future__ import annotations

import math

import numpy as np
import pytest
from liftgate.core.verdict import Outcome
from liftgate.profile.sequential import (
    PairedRounds,
    detectable,
    direction,
    log_e_value,
    needed_rounds,
    paired_rounds,
    relative_gate,
    sequential_p,
)
from scipy import integrate, stats

MS = 1_000_000
Blocks = list[list[np.ndarray]]


def blocks(rng: np.random.Generator, launches: int, rounds: int, requests: int, *, noise: float = 0.2, burst: float = 0.0) -> Blocks:
    """Lognormal times around 1 ms; `burst` is the spread of a factor that every round has of its own."""
    return [
        [(np.exp(rng.normal(0, noise, requests) + rng.normal(0, burst)) * MS).astype(np.int64) for _ in range(rounds)]
        for _ in range(launches)
    ]


def times(factor: float, given: Blocks) -> Blocks:
    return [[(block * factor).astype(np.int64) for block in launch] for launch in given]


@pytest.mark.parametrize(("wins", "rounds"), [(0, 5), (7, 7), (13, 20), (300, 500)])
def test_the_stake_is_the_mixture_over_favourable_coins(wins: int, rounds: int) -> None:
    def likelihood_ratio(theta: float) -> float:
        return math.exp(rounds * math.log(2) + wins * math.log(theta) + (rounds - wins) * math.log1p(-theta))

    by_hand = 2 * integrate.quad(likelihood_ratio, 0.5, 1.0, points=[max(0.5, wins / rounds)], limit=200)[0]
    assert float(log_e_value(wins, rounds)) == pytest.approx(math.log(by_hand), abs=1e-6)


@pytest.mark.parametrize(("alpha", "fewest"), [(0.05, 7), (0.01, 9)])
def test_unanimous_rounds_decide_after_seven_or_nine(alpha: float, fewest: int) -> None:
    assert sequential_p(np.ones(fewest, dtype=bool)) < alpha <= sequential_p(np.ones(fewest - 1, dtype=bool))


def test_looking_after_every_round_is_wrong_no_more_often_than_promised() -> None:
    coins = np.random.default_rng(0).random((2000, 300)) < 0.5
    wrong = sum(sequential_p(row) < 0.05 for row in coins)
    # At most 5 %: 100 of 2000, whose standard deviation is 9.7.
    assert wrong <= 100 + 3 * 9.7
    assert wrong > 20


def test_no_rounds_are_no_evidence() -> None:
    assert sequential_p(np.zeros(0, dtype=bool)) == 1.0


def test_ratios_are_exact_when_the_treatment_is_a_multiple() -> None:
    control = blocks(np.random.default_rng(2), 3, 4, 100, burst=0.3)
    found = paired_rounds(control, times(2, control), 0.95)
    assert [len(launch) for launch in found.rounds] == [4, 4, 4]
    assert [found.estimate().value, found.estimate().low] == pytest.approx([2.0, 2.0])
    assert found.estimate().n == 3


def test_rounds_are_joined_until_the_quantile_means_something() -> None:
    control = blocks(np.random.default_rng(3), 2, 30, 8)
    # 4, 40 and 200 requests: every round, every fifth, every twenty-fifth.
    assert [len(paired_rounds(control, control, p).values) for p in (0.5, 0.95, 0.99)] == [60, 12, 2]
    few = paired_rounds([launch[:10] for launch in control], [launch[:10] for launch in control], 0.99)
    assert (few.launches, few.estimate().value) == ((), None)


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, Outcome.PASS), (1.1, Outcome.FAIL), (1.05, Outcome.UNDECIDED)])
def test_a_margin_is_judged_in_three_ways(factor: float, outcome: Outcome) -> None:
    rng = np.random.default_rng(4)
    found = relative_gate(paired_rounds(blocks(rng, 5, 20, 50), times(factor, blocks(rng, 5, 20, 50)), 0.5), 0.05, 0.05)
    assert found.outcome is outcome


def test_noise_that_both_models_share_hides_nothing() -> None:
    control = blocks(np.random.default_rng(5), 5, 20, 50, burst=0.5)
    assert relative_gate(paired_rounds(control, times(1.03, control), 0.5), 0.02, 0.05).outcome is Outcome.FAIL


def test_launches_that_disagree_decide_nothing_however_many_rounds_they_have() -> None:
    rng = np.random.default_rng(6)
    control = blocks(rng, 4, 200, 50)
    luck = (1.2, 1.0, 1.15, 0.99)
    treatment = [times(factor, [launch])[0] for factor, launch in zip(luck, blocks(rng, 4, 200, 50), strict=True)]
    paired = paired_rounds(control, treatment, 0.5)
    assert sequential_p(paired.values > 0) < 0.001
    assert direction(paired) == "unclear"
    assert relative_gate(paired, 0.0, 0.05).outcome is Outcome.UNDECIDED


def test_two_launches_decide_nothing() -> None:
    control = blocks(np.random.default_rng(7), 2, 50, 50)
    found = relative_gate(paired_rounds(control, times(2, control), 0.5), 0.05, 0.05)
    assert (found.outcome, found.more) == (Outcome.UNDECIDED, 1.5)


@pytest.mark.parametrize(("factor", "word"), [(1.05, "slower"), (0.95, "faster"), (1.0, "unclear")])
def test_a_direction_is_told_only_when_it_is_clear(factor: float, word: str) -> None:
    rng = np.random.default_rng(8)
    assert direction(paired_rounds(blocks(rng, 6, 40, 50), times(factor, blocks(rng, 6, 40, 50)), 0.5)) == word


def test_equal_models_are_called_slower_in_at_most_one_of_a_hundred() -> None:
    rng = np.random.default_rng(9)
    alarms = 0
    for _ in range(200):
        control, treatment = (blocks(rng, 4, 25, 20, burst=0.2) for _ in range(2))
        alarms += direction(paired_rounds(control, treatment, 0.95)) == "slower"
    # 1 % of 200 is 2; 3 more are two standard deviations.
    assert alarms <= 5


def test_the_rounds_needed_agree_with_simulation() -> None:
    needed = needed_rounds(0.75, 0.05)
    assert needed is not None
    rng = np.random.default_rng(10)
    decided = np.mean([float(log_e_value(int((rng.random(needed) < 0.75).sum()), needed)) >= math.log(20) for _ in range(2000)])
    assert 0.75 <= decided <= 0.9
    assert needed_rounds(0.5, 0.05) is None


def test_undecided_says_how_much_more_would_decide() -> None:
    rng = np.random.default_rng(11)
    found = relative_gate(paired_rounds(blocks(rng, 5, 8, 10), times(1.05, blocks(rng, 5, 8, 10)), 0.5), 0.04, 0.05)
    assert found.outcome is Outcome.UNDECIDED
    assert found.more is not None
    assert 1 < found.more < 100


def test_equal_models_keep_to_the_detectable_margin_four_times_in_five() -> None:
    rng = np.random.default_rng(12)

    def paired() -> PairedRounds:
        return paired_rounds(blocks(rng, 6, 20, 20), blocks(rng, 6, 20, 20), 0.5)

    margins = [m for m in (detectable(paired(), 0.05) for _ in range(30)) if m is not None]
    margin = float(np.median(margins))
    passed = np.mean([relative_gate(paired(), margin, 0.05).outcome is Outcome.PASS for _ in range(200)])
    assert 0.65 <= passed <= 0.97


def test_more_data_detect_less() -> None:
    rng = np.random.default_rng(13)
    paired = paired_rounds(blocks(rng, 6, 20, 20), blocks(rng, 6, 20, 20), 0.5)
    little, much = detectable(paired, 0.05), detectable(paired, 0.05, times=9)
    assert little is not None
    assert much is not None
    assert much < little / 2
    assert detectable(paired, 0.05, times=0.02) is None


def test_more_seconds_do_not_outdo_the_luck_of_processes() -> None:
    rng = np.random.default_rng(14)
    rounds = [rng.normal(luck, 0.01, 20) for luck in rng.normal(0, 0.02, 8)]
    paired = PairedRounds(rounds=tuple(tuple(r.tolist()) for r in rounds), launches=tuple(float(np.median(r)) for r in rounds))
    once, longer, more = (detectable(paired, 0.05, times=t, launches=n) for t, n in ((1, 8), (100, 8), (100, 800)))
    assert once is not None
    assert longer == pytest.approx(once, rel=0.05)
    assert more is not None
    assert more < once / 5


def test_the_interval_of_a_ratio_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(15)
    hits = 0
    for _ in range(300):
        control = blocks(rng, 5, 8, 20, burst=0.1)
        treatment = [times(1.05 * math.exp(rng.normal(0, 0.03)), [launch])[0] for launch in blocks(rng, 5, 8, 20, burst=0.1)]
        found = paired_rounds(control, treatment, 0.5).estimate()
        hits += (found.low or 0) <= 1.05 <= (found.high or math.inf)
    # 285 of 300 expected; four standard deviations are 15.
    assert abs(hits - 285) <= 15
    assert stats.binomtest(hits, 300, 0.95).pvalue > 1e-4
