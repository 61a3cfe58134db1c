from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.arrivals import Poisson
from liftgate.profile.load.files import write_load
from liftgate.profile.load.load import LoadRun, load
from liftgate.profile.load.result import Load
from liftgate.profile.load.view import load_view
from rich.console import Console

from .queues import MS, loaded, simulated, trial_of

MakeModel = Callable[..., ModelArtifact]


def shown(run: LoadRun) -> str:
    console = Console(width=200)
    with console.capture() as text:
        console.print(load_view(run.result))
    return text.get()


def test_models_get_the_same_requests_at_the_same_arrivals(make_model: MakeModel, requests: Requests, store: Store) -> None:
    models = [make_model("v1.0"), make_model("v1.1", noise=0.1)]
    run = load(models, Poisson(rate_per_s=200), requests=requests, budget="p95 500 ms", seconds=0.4, launches=2, seed=3, store=store)
    for first, second in zip(*run.trials, strict=True):
        assert (first.requests == second.requests).all()
        assert (first.due_ns == second.due_ns).all()
    one, other = run.trials[0]
    assert (one.due_ns != other.due_ns).any()
    spread = run.result.provenance.candidates_per_request
    assert (spread.min, spread.median, spread.max, spread.n) == (30, 30, 30, 120)
    assert (run.result.provenance.label, run.result.provenance.seed) == ("measured", 3)
    for model in run.result.models:
        assert (model.requests, model.unanswered, model.launches, model.overload) == (80, 0, 2, None)
        assert (model.latency_ms["p50"].value or 0) >= (model.service_ms["p50"].value or 0) > 0
    assert msgspec.json.decode(msgspec.json.encode(run.result), type=Load) == run.result


def test_every_timed_request_is_written_and_a_missing_answer_stays_missing(tmp_path: Path) -> None:
    run = loaded((simulated(500, 1, 40), trial_of([MS, 2 * MS, 3 * MS], [5, 6], [1, 2])))
    write_load(tmp_path, run)
    table = pq.read_table(tmp_path / "load_samples.parquet")
    assert table.column_names == ["instance", "model", "launch", "request_id", "due_ns", "latency_ns", "service_ns", "lag_ns"]
    assert table.slice(40)["latency_ns"].to_pylist() == [5, 6, None]
    assert table.slice(40)["launch"].to_pylist() == [1, 1, 1]
    assert msgspec.json.decode((tmp_path / "load.json").read_bytes(), type=Load) == run.result


def test_the_view_shows_label_limits_and_candidates() -> None:
    text = shown(loaded(tuple(simulated(500, seed) for seed in range(5))))
    for words in (
        "m5.large (emulated, 1 server of 1 thread)",
        "Poisson, 500 requests/s",
        "meets    v1.0: p95 4.5 ms",
        "p95 106.5, max 120",
    ):
        assert words in text
    assert "OVERLOADED" not in text


def test_the_view_shows_overload_and_every_reason_not_to_believe_it() -> None:
    text = shown(loaded(tuple(simulated(1200, seed) for seed in range(5)), invalid=("the machine swapped 300 pages",)))
    assert "OVERLOADED: v1.0: the requests need 1" in text
    assert "INVALID: the machine swapped 300 pages" in text
    assert "invalid  v1.0: p95 4.5 ms" in text


def test_a_load_that_cannot_say_anything_is_refused_before_anything_is_measured(make_model: MakeModel, store: Store) -> None:
    model = make_model("v1.0")
    with pytest.raises(InputError, match=r"expected at least 20 requests per launch, found 2 .*; give --seconds 200"):
        load([model], Poisson(rate_per_s=0.5), seconds=20, launches=5, store=store)
    with pytest.raises(InputError, match="at most 300,000 requests per launch"):
        load([model], Poisson(rate_per_s=1e6), seconds=20, launches=5, store=store)
    with pytest.raises(InputError, match="expected a CPU for every thread, found 64 servers"):
        load([model], Poisson(rate_per_s=100), servers=64, store=store)
