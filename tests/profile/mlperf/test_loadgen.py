from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.profile.mlperf import loadgen
from liftgate.profile.mlperf.loadgen import DETAIL_FILE, Settings, ask, let_others_first, read_judgement, read_trace, require_loadgen

TRACE = """{"traceEvents":[
{"name":"Scheduling","ph":"X","pid":1,"tid":1,"ts":2.000,"dur":0.080,"args":{}},
{"name":"Latency","ph": "C","pid":1,"ts":2.000,"args":{ "issue_delay":200,"issue_to_done":900}},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":0,"ts":2.000,"args":{"sample_seq":0,"query_seq":0,"sample_idx":1,"issue_start_ns":200,"complete_ns":1100}},
{"name":"Sample","cat":"default","ph":"e", "pid":1,"id":0,"ts":3.100},
{"name":"Sample","cat":"default","ph":"b","pid":1,"id":1,"ts":4.567,"args":{"sample_seq":1,"query_seq":1,"sample_idx":0,"issue_start_ns":50,"complete_ns":800}},
{"name":"LogDetail","ph":"X","pid":1,"tid":2,"ts":9.0,"dur":1.2,"args":{"key":""num_errors""}},
"""
FACT = ':::MLLOG {{"key": "{0}", "value": {1}, "time_ms": 1.5, "event_type": "POINT_IN_TIME", "metadata": {{"line_no": 7}}}}\n'


def times_out_of(folder: Path, rate_per_s: float | None, seed: int = 3) -> tuple[loadgen.Asked, loadgen.Judgement]:
    def run(feeds: loadgen.Feeds) -> None:
        until = time.perf_counter_ns() + 50_000
        while time.perf_counter_ns() < until:
            continue

    feeds = [{"x": np.zeros(1)}] * 130
    settings = Settings(rate_per_s=rate_per_s, target_ns=10_000_000_000, percentile=0.95, seed=seed)
    return ask(run, feeds, settings, folder), read_judgement(folder / DETAIL_FILE)


@pytest.mark.parametrize("rate_per_s", [None, 2000.0])
def test_every_request_is_asked_once_and_its_times_are_those_of_loadgens_own_log(tmp_path: Path, rate_per_s: float | None) -> None:
    asked, judgement = times_out_of(tmp_path, rate_per_s)
    assert sorted(asked.order.tolist()) == list(range(130))
    assert (judgement.valid, judgement.queries) == (True, 130)
    # LoadGen takes the latency at position int(n p) in ascending order.
    ordered = np.sort(asked.latency_ns)
    assert {name: judgement.percentiles_ns[name] for name in ("p50", "p90", "p99")} == {
        name: ordered[int(130 * p)] for name, p in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    }
    # The model, LoadGen's call of it and waiting are all of a latency.
    assert (asked.service_ns >= 50_000).all()
    assert (asked.latency_ns >= asked.issue_ns + asked.service_ns).all()
    if rate_per_s is None:
        assert asked.issue_ns.max() < asked.service_ns.min()
        assert (judgement.early_stopping_ns or 0) >= ordered[int(130 * 0.95)]


def test_the_order_and_the_arrivals_follow_from_the_seed_alone(tmp_path: Path) -> None:
    first, second, other = (times_out_of(tmp_path, 5000.0, seed)[0] for seed in (1, 1, 2))
    assert (first.order == second.order).all()
    assert np.abs(first.due_ns - second.due_ns).max() <= 2  # the trace is written in thousandths of a microsecond
    assert (first.order != other.order).any()
    # 129 exponential gaps of 0.2 ms: their sum has a relative standard deviation of 1 / sqrt(129) = 9 %.
    assert 0.6 < first.due_ns[-1] / (129 * 200_000) < 1.4


def test_loadgens_threads_wait_for_everybody_else_and_ended_ones_are_no_error() -> None:
    told: Queue[int] = Queue()
    done = threading.Event()

    def live() -> None:
        told.put(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        number = told.get()
        let_others_first({number, 2**22 + 1})  # beyond the kernel's largest id
        assert os.sched_getscheduler(number) == os.SCHED_IDLE
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    finally:
        done.set()
        thread.join()


def test_a_trace_is_read_though_it_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(TRACE)
    asked = read_trace(tmp_path / "trace", np.array([70, 80], dtype=np.int64))
    assert asked.order.tolist() == [1, 0]
    assert asked.due_ns.tolist() == [0, 2567]
    assert (asked.issue_ns.tolist(), asked.latency_ns.tolist(), asked.service_ns.tolist()) == ([200, 50], [1100, 800], [80, 70])


def test_a_trace_that_lacks_requests_is_no_measurement(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(TRACE)
    with pytest.raises(RunFailed, match="its trace tells of 2 requests, 3 were to be asked once each"):
        read_trace(tmp_path / "trace", np.zeros(3, dtype=np.int64))


def test_what_was_not_satisfied_is_why_loadgen_says_invalid(tmp_path: Path) -> None:
    facts = {
        "result_validity": '"INVALID"',
        "result_perf_constraints_met": "false",
        "result_min_queries_met": "true",
        "early_stopping_met": "false",
        "early_stopping_result": '" * Run unsuccessful.  * Processed 300\\n queries.  * Run unsuccessful."',
        "result_query_count": "300",
        "result_99.00_percentile_latency_ns": "2500000",
        "result_99.90_percentile_latency_ns": "3500000",
    }
    (tmp_path / "detail").write_text("".join(FACT.format(key, value) for key, value in facts.items()))
    found = read_judgement(tmp_path / "detail")
    assert (found.valid, found.early_stopping_ns) == (False, None)
    assert found.reasons == ("the target latency was not met", "too few queries for its early-stopping criterion")
    assert found.percentiles_ns == {"p99": 2_500_000, "p99.9": 3_500_000}
    assert found.early_stopping == "Run unsuccessful; Processed 300 queries"


def test_a_log_without_a_verdict_is_a_failed_run(tmp_path: Path) -> None:
    (tmp_path / DETAIL_FILE).write_text(FACT.format("loadgen_version", '"6.0"'))
    with pytest.raises(RunFailed, match=r"mlperf_log_detail\.txt has no verdict"):
        read_judgement(tmp_path / DETAIL_FILE)


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadgen, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'liftgate\[mlperf\]'"):
        require_loadgen()
