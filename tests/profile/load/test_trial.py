from __future__ import annotations

import numpy as np
import pytest
from liftgate.core.artifact import ModelRef
from liftgate.profile.load.limits import LatencyLimit
from liftgate.profile.load.load import summary
from liftgate.profile.load.trial import answer, latencies, overload, requests_to_settle, unsettled, utilisation

from .queues import MS, simulated, trial_of

REF = ModelRef(name="v1.0", digest="0" * 64, runtime="onnxruntime", size_bytes=1)


def limit(limit_ms: float) -> LatencyLimit:
    return LatencyLimit(quantile="p95", p=0.95, limit_ms=limit_ms)


def test_a_trial_is_ten_batches_of_consecutive_requests_without_the_first_twentieth() -> None:
    one = trial_of([i * MS for i in range(200)], list(range(1, 201)), [1] * 200)
    (batches,) = latencies([one])
    assert [len(batch) for batch in batches] == [19] * 10
    assert np.concatenate(batches).tolist() == list(range(11, 201))


def test_utilisation_is_the_work_that_came_over_the_servers_time() -> None:
    one = trial_of([(i + 1) * 2 * MS for i in range(100)], [MS] * 100, [MS] * 100)
    assert [utilisation(one, 1), utilisation(one, 2)] == pytest.approx([0.5, 0.25])


def test_work_for_more_than_every_server_is_overload() -> None:
    reason = overload([simulated(1200, seed) for seed in range(3)], 1)
    assert reason is not None
    assert reason.startswith("the requests need 1")
    assert overload([simulated(800, seed) for seed in range(3)], 1) is None


def test_requests_that_were_never_begun_are_overload_and_count_as_slower_than_every_other() -> None:
    one = trial_of([i * MS for i in range(1, 101)], [MS] * 49 + [9 * MS], [MS // 2] * 50)
    assert one.unanswered == 50
    reason = overload([one], 1)
    assert reason == "the requests need 50% of the time of 1 server; 50 of 100 were not begun long after the last had come"
    assert sum(int((batch == 9 * MS).sum()) for batch in latencies([one])[0]) == 51
    assert answer([one], limit(20), 1).answer == "misses"


def test_a_queue_that_needs_long_to_empty_is_overload() -> None:
    stuck = trial_of([i * MS for i in range(1, 101)], [MS] * 99 + [15 * MS], [MS // 2] * 100)
    reason = overload([stuck], 1)
    assert reason is not None
    assert reason.endswith("after the last had come the queue needed 15% of the whole time to empty")


def test_limits_far_from_the_simulated_quantile_are_met_or_missed() -> None:
    # M/D/1 at half load: p95 of latency is near 3 service times.
    trials = [simulated(500, seed) for seed in range(5)]
    answers = {ms: answer(trials, limit(ms), 1) for ms in (2.0, 3.0, 4.5)}
    assert (answers[2.0].answer, answers[4.5].answer) == ("misses", "meets")
    found = answers[3.0].found_ms
    assert found.low is not None
    assert found.high is not None
    assert found.low < 3.05 < found.high


def test_dependent_requests_widen_the_interval() -> None:
    queue = [simulated(800, seed) for seed in range(5)]
    mixed = np.random.default_rng(1).permutation(np.concatenate([t.latency_ns for t in queue])).reshape(5, 3000)
    shuffled = [trial_of(t.due_ns.tolist(), ns.tolist(), [MS] * 3000) for t, ns in zip(queue, mixed, strict=True)]
    wide, narrow = (answer(trials, limit(5), 1).found_ms for trials in (queue, shuffled))
    assert wide.low is not None
    assert wide.high is not None
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_busy_queue_that_had_no_time_to_settle_has_no_interval_and_meets_nothing() -> None:
    # M/D/1 at 90 %: 20 x (1 + 0) / 2 / (1 - sqrt(0.9))^2 = 3,797 requests.
    assert requests_to_settle(0.9, 1.0, 0.0) == pytest.approx(3797, abs=1)
    short, long = ([simulated(900, seed, count) for seed in range(5)] for count in (500, 20_000))
    assert answer(short, limit(40), 1).answer == "unclear"
    assert answer(short, limit(40), 1).found_ms.high is None
    assert answer(short, limit(1.5), 1).answer == "misses"
    assert answer(long, limit(40), 1).answer == "meets"
    assert unsettled(long, 1) is None
    reason = unsettled(short, 1)
    assert reason is not None
    assert reason.endswith("requests to settle, a launch had 500")


def test_a_server_that_is_late_by_itself_answers_no_limit() -> None:
    lag = [MS if i % 20 == 0 else 0 for i in range(1000)]
    late = trial_of([i * 10 * MS for i in range(1, 1001)], [2 * MS] * 1000, [MS] * 1000, lag)
    found = summary(REF, [late] * 3, servers=1, limits=[limit(10)])
    assert found.limits[0].answer == "invalid"
    assert found.invalid == ("the server itself was late by 1.000 ms at p99 (at most 5% of p95 10 ms, 0.500 ms)",)
    assert summary(REF, [late] * 3, servers=1, limits=[limit(40)]).limits[0].answer == "meets"
    assert summary(REF, [late] * 3, servers=1, limits=[limit(40)], trusted=False).limits[0].answer == "invalid"


def test_without_a_limit_lateness_is_held_against_the_p95() -> None:
    late = trial_of([i * 10 * MS for i in range(1, 1001)], [2 * MS] * 1000, [MS] * 1000, [MS] * 1000)
    (reason,) = summary(REF, [late] * 3, servers=1, limits=[]).invalid
    assert reason == "the server itself was late by 1.000 ms at p99 (at most 5% of latency's p95, 0.100 ms)"
