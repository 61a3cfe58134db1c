from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile import cli
from liftgate.profile.mlperf import loadgen
from liftgate.profile.mlperf.cross_check import WORKER as OURS
from liftgate.profile.mlperf.cross_check import Plan, cross_check, plans, rounds_per_launch
from liftgate.profile.mlperf.result import CrossCheck
from liftgate.profile.mlperf.view import cross_check_view
from rich.console import Console
from typer.testing import CliRunner

MakeModel = Callable[..., ModelArtifact]
DELAY_MS = 1.0
# A worker whose session does something first: keeps busy, goes wrong, or makes LoadGen do so.
WORKER = """
import time
import mlperf_loadgen as lg
from liftgate.profile.mlperf import loadgen, worker

class Sessions(worker.LoadgenWorker):
    def __init__(self, command):
        super().__init__(command)
        run = self.session.run
        def slower(feeds):
            until = time.perf_counter_ns() + {delay_ns}
            while time.perf_counter_ns() < until:
                continue
            return run(feeds)
        class Slower:
            def run(self, feeds): return slower(feeds)
        self.session = Slower()

    def loadgen(self, command):
        {before}
        return super().loadgen(command)

worker.main(Sessions)
"""
NO_LIBRARY = "empty = lg.ConstructQSL; lg.ConstructQSL = lambda total, loaded, load, unload: empty(0, 0, load, unload)"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float, str], str]:
    """A module to run as the worker."""

    def write(delay_ms: float, before: str = "pass") -> str:
        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "some_worker.py").write_text(WORKER.format(delay_ns=int(delay_ms * 1e6), before=before))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
        return "some_worker"

    return write


def check(model: ModelArtifact, requests: Requests, store: Store, *, worker: str = OURS, budget: str | None = None) -> CrossCheck:
    return cross_check(model, requests=requests, store=store, budget=budget, worker=worker, threads=1, seconds=1, launches=1, seed=1)


def test_both_tools_see_a_known_delay(make_model: MakeModel, requests: Requests, store: Store, worker: Callable[[float], str]) -> None:
    found = check(make_model("v1.0"), requests, store, worker=worker(DELAY_MS), budget="p50 60 s")
    one, many = found.scenarios
    assert (one.scenario, one.rate_per_s, one.late_ms) == ("SingleStream", None, None)
    assert many.scenario == "Server"
    assert many.rate_per_s is not None
    assert 0 < many.rate_per_s <= 1000 / DELAY_MS / 2
    for scenario in found.scenarios:
        assert (scenario.rounds, scenario.launches) == (16, 1)
        assert [one.percentile for one in scenario.percentiles] == ["p50", "p90", "p95", "p99"]
        for percentile in scenario.percentiles:
            assert (percentile.loadgen_ms.value or 0) >= DELAY_MS
            assert (percentile.ours_ms.value or 0) >= DELAY_MS
    assert 0.5 < (one.percentiles[0].ratio.value or 0) < 2
    # 60 s for the median is kept by anything, and ten queries are enough for LoadGen to say so.
    assert (many.verdict.result, many.verdict.reasons, many.verdict.target_ms) == ("VALID", (), 60_000)
    assert msgspec.json.decode(msgspec.json.encode(found), type=CrossCheck) == found

    console = Console(width=200)
    with console.capture() as text:
        console.print(cross_check_view(found))
    assert "SingleStream and our closed loop" in text.get()
    assert "VALID  LoadGen's verdict on" in text.get()


def test_a_target_that_is_missed_makes_loadgen_say_invalid(make_model: MakeModel, requests: Requests, store: Store) -> None:
    found = check(make_model("v1.0"), requests, store, budget="p90 1 ns")
    verdict = found.scenarios[1].verdict
    assert (verdict.result, verdict.target, verdict.target_ms) == ("INVALID", "p90", 1e-6)
    assert verdict.reasons == ("the target latency was not met", "too few queries for its early-stopping criterion")
    console = Console(width=200)
    with console.capture() as text:
        console.print(cross_check_view(found))
    assert "INVALID  LoadGen's verdict on" in text.get()
    assert "the target latency was not met" in text.get()


def test_a_crash_of_loadgen_is_a_failed_run(
    make_model: MakeModel, requests: Requests, store: Store, worker: Callable[[float, str], str]
) -> None:
    # LoadGen does not expect a library without samples: the kernel ends the process.
    with pytest.raises(RunFailed, match=r"measuring v1\.0: the worker process died: .*killed by signal"):
        check(make_model("v1.0"), requests, store, worker=worker(0.1, NO_LIBRARY))


def test_a_model_that_fails_while_loadgen_asks_is_told_with_its_last_words(
    make_model: MakeModel, requests: Requests, store: Store, worker: Callable[[float, str], str]
) -> None:
    broken = "self.session.run = lambda feeds: 1 / 0"
    with pytest.raises(RunFailed, match="ZeroDivisionError: division by zero"):
        check(make_model("v1.0"), requests, store, worker=worker(0.1, broken))


def test_half_of_the_time_goes_to_each_scenario_and_a_quarter_of_it_to_the_judged_run() -> None:
    # 20 s: 7.5 s of rounds per scenario over 8 launches of 1 + 2 x 2 blocks are 187.5 ms each, 2.5 s are judged. Requests of 1 ms keep a
    # server busy half of the time when 500 come per second.
    one, many = plans(20.0, 8, 0.001, None)
    assert one == Plan(rate_per_s=None, block=187, judged=2500)
    assert many == Plan(rate_per_s=500.0, block=93, judged=1250)
    assert (rounds_per_launch(8), rounds_per_launch(1), rounds_per_launch(100)) == (2, 16, 2)


def test_a_rate_beyond_what_one_server_answers_is_refused() -> None:
    with pytest.raises(InputError, match="--rate: expected less than the 500 per second one server answers, found 500"):
        plans(20.0, 8, 0.002, 500.0)


def test_the_command_says_what_is_missing_and_what_does_not_belong_together(
    make_model: MakeModel, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("v1.0")
    command = ["run", "v1.0", "--store", str(store.root)]
    found = CliRunner().invoke(cli.app, [*command, "--rate", "5"])
    assert (found.exit_code, "only to cross-check with MLPerf LoadGen" in found.output) == (2, True)
    found = CliRunner().invoke(cli.app, [*command, "--mlperf", "--batch", "1,4"])
    assert (found.exit_code, "--batch" in found.output) == (2, True)
    monkeypatch.setattr(loadgen, "find_spec", lambda name: None)
    found = CliRunner().invoke(cli.app, [*command, "--mlperf"])
    assert (found.exit_code, "pip install 'liftgate[mlperf]'" in found.output) == (2, True)
