from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from liftgate.core.estimate import Estimate
from liftgate.profile.mlperf import agreement
from liftgate.profile.mlperf.agreement import Pair, answer_of, compare_pairs


def drifting_pairs(seed: int, *, rounds: int = 16, requests: int = 60, slower: float = 1.0) -> list[Pair]:
    """Two tools that see the same drifting machine: lognormal requests, and a level that wanders from block to block."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(rng.normal(0, 0.1, 2 * rounds))
    blocks = np.exp(rng.normal(0, 0.2, (2 * rounds, requests)) + level[:, None]) * 1e6
    pairs = []
    for number in range(rounds):
        first, second = blocks[2 * number].astype(np.int64), blocks[2 * number + 1].astype(np.int64)
        theirs, mine = (first, second) if rng.random() < 0.5 else (second, first)
        pairs.append(Pair(loadgen=(theirs * slower).astype(np.int64), ours=mine))
    return pairs


def test_equal_tools_on_a_drifting_machine_differ_in_at_most_a_twentieth_of_the_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_DRAWS", 99)
    rng = np.random.default_rng(0)
    answers = [compare_pairs(drifting_pairs(seed), rng) for seed in range(100)]
    any_differs = sum(any(found.answer == "differ" for found in one.values()) for one in answers)
    # With a true rate of 5 %, more than 11 of 100 come up once in 230 (binomial).
    assert any_differs <= 11


def test_a_tool_that_adds_a_tenth_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "_DRAWS", 999)
    steady = [Pair(loadgen=(pair.ours * 1.1).astype(np.int64), ours=pair.ours) for pair in drifting_pairs(1)]
    found = compare_pairs(steady, np.random.default_rng(0))
    assert Counter(one.answer for one in found.values()) == {"differ": 4}
    assert [round(one.ratio.value or 0, 3) for one in found.values()] == [1.1] * 4


def test_two_identical_tools_agree_with_a_ratio_of_one_and_a_p_value_of_one() -> None:
    same = [Pair(loadgen=pair.ours, ours=pair.ours) for pair in drifting_pairs(2)]
    for found in compare_pairs(same, np.random.default_rng(0)).values():
        assert (found.answer, found.p_value) == ("agree", 1.0)
        assert (found.ratio.value, found.ratio.low, found.ratio.high, found.ratio.n) == (1.0, 1.0, 1.0, 16)


def test_percentiles_are_those_of_all_rounds_together() -> None:
    # 1..5 and 6..10 ms against 10 ms throughout; p50 of ten is the fifth, p90 the ninth, p95 and p99 the tenth.
    ten = np.full(5, 10_000_000)
    pairs = [Pair(loadgen=np.arange(1, 6) * 1_000_000, ours=ten), Pair(loadgen=np.arange(6, 11) * 1_000_000, ours=ten)]
    ratios = [found.ratio.value for found in compare_pairs(pairs, np.random.default_rng(0)).values()]
    assert ratios == pytest.approx([0.5, 0.9, 1.0, 1.0])


def test_little_seen_is_unclear_and_not_agreement() -> None:
    wide = Estimate(value=1.0, low=0.7, high=1.4, n=4)
    assert answer_of(wide, 0.9) == "unclear"
    assert answer_of(Estimate(value=1.1, low=0.7, high=1.4, n=4), 0.04) == "differ"


def test_a_sure_difference_that_nobody_would_notice_is_agreement() -> None:
    assert answer_of(Estimate(value=1.015, low=1.01, high=1.02, n=16), 0.001) == "agree"
    assert answer_of(Estimate(value=1.025, low=1.02, high=1.03, n=16), 0.001) == "differ"


def test_a_narrow_interval_around_one_is_agreement() -> None:
    assert answer_of(Estimate(value=1.0, low=0.9, high=1.2, n=4), 0.9) == "agree"
