from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.launch import WorkerHandle
from liftgate.profile.replay import Feeds, Replay, replay
from numpy.typing import NDArray

MakeModel = Callable[..., ModelArtifact]
MS = 1_000_000


class Simulated:
    """A clock that only sleeping, serving and reading it move, and a model that takes `service_ns[i]` for request i."""

    def __init__(self, service_ns: list[int]) -> None:
        self.now = 0
        self.slept = 0
        self.feeds: list[Feeds] = [{"number": np.array(i)} for i in range(len(service_ns))]
        self._service_ns = service_ns

    def clock(self) -> int:
        self.now += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)
        self.slept += round(seconds * 1e9)

    def run(self, feeds: Feeds) -> None:
        self.now += self._service_ns[int(feeds["number"])]

    def replay(self, arrivals_ns: list[int], *, give_up_ns: int | None = None, watch_ns: int = 0) -> Replay:
        return replay(self.run, self.feeds, arrivals_ns, give_up_ns=give_up_ns, watch_ns=watch_ns, clock=self.clock, sleep=self.sleep)


def lindley(arrivals_ns: list[int], service_ns: list[int]) -> NDArray[np.int64]:
    """Time in system of every customer of a single-server queue (Lindley 1952): W[i+1] = max(0, W[i] + S[i] - gap)."""
    wait = [0]
    for gap, service in zip(np.diff(arrivals_ns), service_ns, strict=False):
        wait.append(max(0, wait[-1] + service - int(gap)))
    return np.asarray(np.array(wait) + np.array(service_ns), dtype=np.int64)


def test_latency_is_that_of_a_single_server_queue() -> None:
    rng = np.random.default_rng(1)
    arrivals = np.cumsum(rng.exponential(1.25 * MS, 2000)).astype(np.int64).tolist()
    service = rng.exponential(1 * MS, 2000).astype(np.int64).tolist()
    found = Simulated(service).replay(arrivals)
    # A few readings of the clock, 1 ns each, lie between a request's end and the next one's beginning; a busy period adds them up.
    np.testing.assert_allclose(found.latency_ns, lindley(arrivals, service), atol=10 * 2000)
    np.testing.assert_allclose(found.service_ns, service, atol=10)
    assert found.lag_ns.max() < 10


def test_a_queue_of_constant_service_waits_as_the_formula_says() -> None:
    # M/D/1 at utilisation 0.5 waits rho / (2 (1 - rho)) = 0.5 service times on average (Pollaczek and Khinchine).
    arrivals = np.cumsum(np.random.default_rng(2).exponential(2 * MS, 60_000)).astype(np.int64).tolist()
    found = Simulated([MS] * 60_000).replay(arrivals)
    assert float((found.latency_ns - found.service_ns).mean()) / MS == pytest.approx(0.5, rel=0.05)


def test_one_stall_delays_everything_that_falls_due_meanwhile() -> None:
    service = [MS // 10] * 1000
    service[500] = 200 * MS
    open_loop = Simulated(service).replay([i * MS for i in range(1000)])
    # 200 requests fall due during the stall and wait from 199 ms down to none; a closed loop sees one slow request of 1000.
    assert float(np.quantile(open_loop.latency_ns, 0.99)) > 150 * MS
    assert float(np.quantile(open_loop.service_ns, 0.99)) < 0.11 * MS


def test_an_idle_server_sleeps_until_shortly_before_the_next_request() -> None:
    simulated = Simulated([MS] * 10)
    simulated.replay([i * 10 * MS for i in range(10)], watch_ns=MS // 1000)
    assert simulated.slept == pytest.approx(9 * 9 * MS, rel=0.05)


def test_an_overloaded_queue_is_given_up_and_says_how_far_it_came() -> None:
    found = Simulated([MS] * 100).replay([i * MS // 2 for i in range(100)], give_up_ns=20 * MS)
    assert len(found.latency_ns) == len(found.service_ns) == len(found.lag_ns) == 20
    # The twentieth is due after 9.5 ms and done after 20.
    assert float(found.latency_ns[-1]) == pytest.approx(10.5 * MS, rel=0.01)


def test_two_servers_take_requests_of_one_queue() -> None:
    begun: list[int] = []

    def run(feeds: Feeds) -> None:
        begun.append(int(feeds["number"]))
        time.sleep(0.02)

    feeds: list[Feeds] = [{"number": np.array(i)} for i in range(6)]
    with ThreadPoolExecutor(2) as threads:
        found = replay(run, feeds, [0] * 6, servers=2, threads=threads)
    # Six requests at once: one server would need six service times for the last, two need three.
    assert sorted(begun) == list(range(6))
    assert 2.5 < found.latency_ns.max() / found.service_ns.mean() < 4.5
    assert (found.service_ns >= 20 * MS).all()


def test_a_server_that_fails_fails_the_replay() -> None:
    def run(feeds: Feeds) -> None:
        raise ValueError("broken model")

    with ThreadPoolExecutor(2) as threads, pytest.raises(ValueError, match="broken model"):
        replay(run, [{}] * 4, [0] * 4, servers=2, threads=threads)


def test_a_worker_answers_a_schedule(make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path) -> None:
    requests.write(tmp_path / "requests.parquet")
    worker = WorkerHandle("v1.0", [0], 1)
    try:
        worker.open(make_model("v1.0").path, store.root, tmp_path / "requests.parquet", 1)
        for servers in (1, 2):
            done = worker.schedule((3, 4, 5) * 5, tuple(i * MS for i in range(15)), warmup=2, servers=servers)
            latency, service, lag = (np.frombuffer(b, dtype="<i8") for b in (done.latency, done.service, done.lag))
            assert len(latency) == len(service) == len(lag) == 15
            assert ((service > 0) & (lag >= 0) & (latency >= service + lag)).all()
            assert done.ran_ns is None or done.ran_ns > 0
        worker.stop()
    finally:
        worker.kill()
