from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from liftgate.profile.load.limits import LatencyLimit
from liftgate.profile.load.result import Answer
from liftgate.profile.load.search import Search
from liftgate.profile.load.trial import Trial, answer_of

from .queues import MS, simulated


def found(search: Search, answer_at: Callable[[float], Answer]) -> tuple[float | None, float | None]:
    while (rate := search.next_rate()) is not None:
        search.tell(rate, answer_at(rate))
    return search.meets_per_s, search.misses_per_s


def test_a_clear_limit_is_bracketed_within_the_tolerance() -> None:
    search = Search(50, 1000)
    low, high = found(search, lambda rate: "meets" if rate <= 317 else "misses")
    assert low is not None
    assert high is not None
    assert low <= 317 < high
    assert high / low <= 1.10
    assert search.confirmed
    assert (search.tallies[low].meets, search.tallies[high].misses) == (3, 2)


def test_a_rate_that_met_by_luck_is_given_up_when_fresh_trials_miss() -> None:
    lucky = iter(["meets"])
    search = Search(200, 1000)
    low, _ = found(search, lambda rate: "meets" if rate <= 150 else next(lucky, "misses"))  # type: ignore[arg-type]
    assert low is not None
    assert low <= 150
    assert search.tallies[200].answer == "misses"


def test_rates_that_stay_unclear_lie_inside_the_interval() -> None:
    search = Search(50, 1000)
    low, high = found(search, lambda rate: "meets" if rate < 280 else "misses" if rate > 400 else "unclear")
    assert low is not None
    assert high is not None
    assert 280 / 1.10 <= low < 280
    assert 400 < high <= 400 * 1.10


def test_a_budget_that_no_rate_meets_ends_the_search() -> None:
    search = Search(100, 1000)
    low, high = found(search, lambda rate: "misses")
    assert low is None
    assert high == pytest.approx(100 / 256)
    assert not search.confirmed


def test_a_budget_met_up_to_the_ceiling_has_no_upper_end() -> None:
    search = Search(100, 1000)
    assert found(search, lambda rate: "meets") == (1000, None)
    assert search.confirmed


def test_a_search_ends_after_its_trials() -> None:
    search = Search(100, 1000, most_trials=4)
    found(search, lambda rate: "unclear")
    assert sum(t.unclear for t in search.tallies.values()) == 4


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_of_a_simulated_server_is_found(seed: int) -> None:
    # The p95 of latency in milliseconds at a load, from very many customers.
    def p95(rate: float) -> float:
        return float(np.quantile(simulated(rate, 1, 100_000).latency_ns, 0.95)) / MS

    limit = LatencyLimit(quantile="p95", p=0.95, limit_ms=3.0)
    seeds = iter(range(1000 * seed, 1000 * seed + 999))
    by_rate: dict[float, list[Trial]] = {}

    def trial(rate: float) -> Answer:
        one = simulated(rate, next(seeds))
        by_rate.setdefault(rate, []).append(one)
        return answer_of(one, by_rate[rate], [limit], servers=1)

    low, high = found(Search(100, 1200), trial)
    assert low is not None
    assert high is not None
    assert p95(low) < 3.0 < p95(high)
    assert high / low < 1.35
