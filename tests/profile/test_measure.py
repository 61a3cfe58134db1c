from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.latency import latency
from liftgate.profile.launch import Subject, WorkerHandle, aside
from liftgate.profile.machines.instance import find_instance
from liftgate.profile.machines.placement import place
from liftgate.profile.measure import Plan, Run, measure, plan, rounds_of_launches
from liftgate.profile.render import latency_view
from liftgate.profile.samples import write_samples
from rich.console import Console, Group

MakeModel = Callable[..., ModelArtifact]


def test_a_round_lasts_a_fortieth_of_a_second_per_model() -> None:
    # 25 requests of 1 ms; a round costs 25 x 2 ms x 1.05 = 52.5 ms, and a launch has 2.5 s.
    assert plan(20.0, [0.001, 0.0009], 8) == Plan(block=25, warmup=2, rounds_per_launch=50)


def test_fast_models_get_large_blocks_and_slow_ones_small_ones() -> None:
    assert plan(20.0, [1e-5, 1e-5], 8).block == 500
    # 2 rounds of 4 requests are the least, though they take 2.94 s and a launch has 2.5 s.
    assert plan(20.0, [0.2, 0.15], 8) == Plan(block=4, warmup=1, rounds_per_launch=2)


def test_the_first_launches_are_the_shortest() -> None:
    # Weights 1 1 2 2 4 4 4 4 of 22, of 8 x 50 rounds; at least two of each.
    assert rounds_of_launches(Plan(block=25, warmup=2, rounds_per_launch=50), 8) == (18, 18, 36, 36, 72, 72, 72, 72)
    assert rounds_of_launches(Plan(block=4, warmup=1, rounds_per_launch=2), 3) == (2, 2, 3)


def test_models_take_turns_on_the_same_requests_in_fresh_processes(
    make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path
) -> None:
    models = [make_model("v1.0"), make_model("v1.1", noise=0.1)]
    subjects = [Subject(ref=m.ref(), path=m.path, signature=m.manifest.signature) for m in models]
    before = os.sched_getaffinity(0)
    run = measure(subjects, requests, place(find_instance("local"), threads=1), seconds=0.2, launches=2, seed=1, store=store)
    assert os.sched_getaffinity(0) == before
    blocks = run.samples.blocks
    assert {(b.model, b.launch) for b in blocks} == {(0, 0), (1, 0), (0, 1), (1, 1)}
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        assert (first.round, first.turn, second.round, second.turn) == (first.round, 0, first.round, 1)
        assert first.model != second.model
        assert (first.requests == second.requests).all()
    assert len({b.model for b in blocks[::2]}) == 2
    assert all((b.ns > 0).all() for b in blocks)
    assert len(run.launches) == 4
    assert all(told.ready.load_ns > 0 and (told.ended.memory_bytes or 0) > 10 * 2**20 for told in run.launches)
    assert run.candidates == (30,) * 120

    write_samples([run.samples], tmp_path / "samples.parquet")
    table = pq.read_table(tmp_path / "samples.parquet")
    assert table.num_rows == sum(len(b.ns) for b in blocks)
    assert table.column_names == ["instance", "model", "launch", "round", "turn", "request_id", "ns"]
    first_rows = table.slice(0, len(blocks[0].ns))
    assert first_rows["ns"].to_pylist() == blocks[0].ns.tolist()
    assert first_rows["request_id"].to_pylist() == [f"r{i}" for i in blocks[0].requests]


def test_measuring_stops_as_soon_as_the_answer_is_clear(make_model: MakeModel, requests: Requests, store: Store) -> None:
    model = make_model("v1.0")
    subjects = [Subject(ref=model.ref(), path=model.path, signature=model.manifest.signature)] * 2
    asked: list[int] = []

    def enough(run: Run) -> bool:
        asked.append(len({b.launch for b in run.samples.blocks}))
        return len(asked) == 2

    place_here = place(find_instance("local"), threads=1)
    run = measure(subjects, requests, place_here, seconds=0.4, launches=4, store=store, enough=enough)
    assert asked == [1, 2]
    assert (len(run.launches), run.planned) == (4, 4)


def test_memory_the_kernel_does_not_tell_is_shown_as_unknown(make_model: MakeModel, store: Store) -> None:
    found = latency([make_model("v1.0")], seconds=0.1, launches=1, store=store)
    untold = msgspec.structs.replace(found, models=(msgspec.structs.replace(found.models[0], memory_bytes=()),))
    console = Console(width=200)
    with console.capture() as text:
        console.print(Group(*latency_view(untold)))
    assert "unknown" in text.get()


@pytest.fixture
def worker() -> WorkerHandle:
    return WorkerHandle("v1.0", sorted(os.sched_getaffinity(0))[:1], 1)


def test_a_worker_that_dies_is_reported_with_its_last_words(worker: WorkerHandle) -> None:
    try:
        with pytest.raises(RunFailed, match=r"measuring v1\.0: the worker process died: AssertionError: the first command must be Open"):
            worker.block((0,), 0)
    finally:
        worker.kill()


def test_a_killed_worker_is_reported_with_its_signal(worker: WorkerHandle) -> None:
    try:
        os.kill(worker.pid, 9)
        with pytest.raises(RunFailed, match="killed by signal 9"):
            worker.block((0,), 0)
    finally:
        worker.kill()


def test_a_model_the_worker_cannot_load_is_the_users_error(worker: WorkerHandle, requests: Requests, tmp_path: Path) -> None:
    requests.write(tmp_path / "requests.parquet")
    (tmp_path / "empty").mkdir()
    try:
        with pytest.raises(InputError, match="expected a model artifact folder"):
            worker.open(tmp_path / "empty", tmp_path, tmp_path / "requests.parquet", 1)
    finally:
        worker.kill()


def test_killing_twice_is_harmless(worker: WorkerHandle) -> None:
    worker.kill()
    worker.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_the_parent_stays_off_measured_cpus_when_others_are_left() -> None:
    before = os.sched_getaffinity(0)
    some = sorted(before)[:1]
    with aside(some):
        expected = before - set(some) or before
        assert os.sched_getaffinity(0) == expected
    assert os.sched_getaffinity(0) == before


def test_in_an_open_loop_both_models_get_the_same_arrivals_and_latency_counts_from_them(
    make_model: MakeModel, requests: Requests, store: Store
) -> None:
    model = make_model("v1.0")
    subjects = [Subject(ref=model.ref(), path=model.path, signature=model.manifest.signature)] * 2
    run = measure(subjects, requests, place(find_instance("local"), threads=1), seconds=0.5, launches=1, store=store, rate_per_s=100.0)
    assert (run.rate_per_s, run.samples.instance) == (100.0, "local@100/s")
    assert {len(b.ns) for b in run.samples.blocks} == {50}
    # Two rounds of two blocks, each half a second of arrivals: far more than 200 requests of microseconds would take.
    assert run.measured_s > 1.0
