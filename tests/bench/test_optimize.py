from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from liftgate.bench.optimize.case import Case, Training
from liftgate.bench.optimize.features import SEGMENTS, World, oldest_first, read_world
from liftgate.bench.optimize.judging import Kept, Order, order_of
from liftgate.bench.optimize.process import Worker
from liftgate.bench.optimize.protocol import Spec
from liftgate.bench.optimize.requests import CANDIDATES, LEAST_PER_USER, Asked
from liftgate.bench.optimize.result import CaseResult, Outcome, Result, geometric_mean, speedups
from liftgate.bench.optimize.roofline import Need, Peaks
from liftgate.bench.optimize.table import table
from liftgate.bench.optimize.timing import Times
from liftgate.bench.optimize.variants import Job
from liftgate.core.errors import RunFailed
from liftgate.core.estimate import Estimate
from liftgate.core.machine import Machine
from liftgate.demo.generator import generate


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("films")
    frame = generate(seed=0, users=12, items=2000).frame
    frame.rename(columns={"user": "userId", "item": "movieId"}).to_csv(folder / "ratings.csv", index=False)
    titles = [f"Film {item} ({1950 + item % 60})" for item in range(1, 2001)]
    genres = ["Comedy|Drama" if item % 2 else "Action" for item in range(1, 2001)]
    pd.DataFrame({"movieId": range(1, 2001), "title": titles, "genres": genres}).to_csv(folder / "movies.csv", index=False)
    return read_world(folder)


def a_case() -> Case:
    return Case(
        name="case",
        package="package",
        request_inputs=("user", "history"),
        candidate_inputs=("item",),
        build=lambda users, items: pytest.fail("nothing is trained here"),
        training=Training(loss="logit", epochs=1),
    )


def kept(all_users: Estimate, **segments: Estimate) -> Kept:
    return Kept(requests=9, ratios={"all": all_users, **segments})


def estimate(value: float, low: float) -> Estimate:
    return Estimate(value=value, low=low, high=1.01, n=9)


def times(*rounds: list[int]) -> Times:
    return Times(ns=list(rounds))


def test_requests_hide_what_the_user_rated_next_among_films_never_rated(world: World) -> None:
    asked = Asked(world, "holdout")
    held_out = world.split.holdout
    for user, items, labels in zip(asked.user.tolist(), asked.item, asked.label, strict=True):
        liked = held_out[(held_out["user"] == user) & (held_out["rating"] >= 4)]["item"].tolist()
        assert set(items[labels == 1].tolist()) <= set(liked)
        assert labels.sum() >= 1
        assert len(set(items.tolist())) == CANDIDATES
        others = set(items[labels == 0].tolist()) & world.rated[user]
        assert others <= set(held_out[(held_out["user"] == user) & (held_out["rating"] < 4)]["item"].tolist())


def test_every_user_is_asked_often(world: World) -> None:
    _, counts = np.unique(Asked(world, "holdout").user, return_counts=True)
    assert counts.min() >= LEAST_PER_USER["holdout"]


def test_a_case_gets_the_inputs_it_takes_and_segments_by_thirds(world: World) -> None:
    requests = Asked(world, "validation").for_case(a_case())
    assert set(requests.input_columns) == {"user", "history", "item"}
    assert sorted(list(world.segments.values()).count(name) for name in SEGMENTS) == [4, 4, 4]


def test_histories_are_from_before_the_request(world: World) -> None:
    asked = Asked(world, "holdout", least=1)
    known = pd.concat([world.split.train, world.split.validation, world.split.holdout])
    when = {(user, item): time for user, item, time in zip(known["user"], known["item"], known["timestamp"], strict=True)}
    for user, time, history in zip(asked.user.tolist(), asked.timestamp.tolist(), asked.history, strict=True):
        assert all(when[user, item] <= time for item in history[history != 0].tolist())


def test_padding_moves_from_the_front_to_the_back() -> None:
    history = np.zeros((1, 50), dtype=np.int64)
    history[0, -3:] = [7, 8, 9]
    assert oldest_first(history)[0, :4].tolist() == [7, 8, 9, 0]


def test_the_same_scores_are_the_same_order() -> None:
    scores = np.array([[3.0, 1.0, 2.0]])
    found = order_of(scores, scores)
    assert (found.different, found.different_in_ten, found.largest_gap, found.largest_difference) == (0, 0, 0.0, 0.0)


def test_a_swap_is_told_by_the_gap_of_the_original() -> None:
    original = np.array([[0.0, 2.0, 4.0], [0.0, 2.0, 4.0]])
    found = order_of(original, np.array([[0.0, 4.5, 4.0], [0.0, 2.0, 4.0]]))
    # The request's scores have a standard deviation of sqrt(8 / 3); two candidates 2 apart changed places.
    assert (found.requests, found.different, found.different_in_ten) == (2, 1, 1)
    assert found.largest_gap == pytest.approx(2 / np.sqrt(8 / 3))
    assert found.largest_gap_absolute == 2
    assert found.largest_difference == pytest.approx(2.5 / np.sqrt(8 / 3))


def test_the_first_ten_may_stay_where_later_ones_move() -> None:
    original = np.arange(12.0, 0.0, -1.0)[None, :]
    moved = original.copy()
    moved[0, 10:] = moved[0, 10:][::-1]
    found = order_of(original, moved)
    assert (found.different, found.different_in_ten, found.largest_gap_absolute) == (1, 0, 1.0)


def test_a_tie_broken_otherwise_has_no_gap() -> None:
    found = order_of(np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, 1.0 + 1e-9, 0.0]]))
    assert (found.different, found.largest_gap) == (1, 0.0)


@pytest.mark.parametrize(
    ("overall", "segment", "counts"),
    [
        ((0.999, 0.995), (0.999, 0.995), True),
        ((0.9989, 0.998), (1.0, 1.0), False),
        ((1.0, 1.0), (1.0, 0.9949), False),
        ((1.0, 1.0), (0.998, 0.997), False),
    ],
)
def test_quality_counts_overall_and_in_the_worst_segment(overall: tuple[float, float], segment: tuple[float, float], counts: bool) -> None:
    found = kept(estimate(*overall), casual=estimate(*segment), power=estimate(1.0, 1.0))
    assert found.counts is counts
    assert found.worst == ("power" if segment[0] > 1 else "casual")


def test_an_unknown_lower_end_does_not_count() -> None:
    assert not kept(Estimate(value=1.0, low=None, high=None, n=1)).counts


def test_a_peer_that_takes_too_long_to_judge_is_believed() -> None:
    wide = kept(estimate(1.0, 0.99), casual=estimate(0.998, 0.98))
    assert not wide.counts
    assert msgspec.structs.replace(wide, believed=True).counts


def test_a_whole_interval_below_the_floor_needs_no_more_requests() -> None:
    below = Estimate(value=0.99, low=0.985, high=0.9985, n=9)
    assert kept(estimate(1.0, 1.0), casual=below).hopeless
    assert not kept(estimate(1.0, 1.0), casual=estimate(0.99, 0.98)).hopeless


def test_ratios_are_paired_by_round() -> None:
    # The machine was twice as slow in the second round: each round says 1.5 all the same.
    found = times([150, 150], [300, 300]).over(times([100, 100], [200, 200]))
    assert (found.value, found.low, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_quantiles_pool_all_rounds() -> None:
    assert times([1_000_000, 3_000_000], [2_000_000, 2_000_000]).quantile_ms(0.5).value == 2.0


def a_result(mine: int) -> Result:
    fine = kept(estimate(1.0, 1.0), casual=estimate(1.0, 1.0))
    poor = kept(estimate(0.9, 0.8), casual=estimate(0.9, 0.8))
    exact = Order(requests=9, different=1, different_in_ten=0, largest_gap=1e-6, largest_gap_absolute=1e-7, largest_difference=2e-6)
    needs = {256: Need(flops=1_000_000, bytes=100_000, int8=False), 32: Need(flops=125_000, bytes=20_000, int8=False)}

    def outcome(ns: int, quality: Kept, **more: object) -> Outcome:
        return Outcome(kept=quality, times={256: times([ns, ns]), 32: times([ns // 8, ns // 8])}, **more)  # type: ignore[arg-type]

    outcomes = {
        "ort-fp32": outcome(8_000_000, fine),
        "openvino": outcome(4_000_000, fine),
        "nncf": outcome(1_000, poor),
        "inc": Outcome(failure="cannot quantize"),
        "liftgate-exact": outcome(mine, fine, order=exact, needs=needs),
    }
    return Result(
        machine=Machine(cpu="cpu", cores=1, threads_per_core=1, memory_gib=1.0, features=(), system="system", fingerprint=""),
        core=0,
        tools={},
        command="make bench PARTS=optimize",
        seconds=60.0,
        peaks=Peaks(float32_gflops=10.0, int8_gops=20.0, cache_gb_s=10.0, memory_gb_s=5.0),
        cases=(CaseResult(name="case", package="package", ndcg=0.4, popularity_ndcg=0.3, outcomes=outcomes),),
    )


def test_the_best_peer_is_the_fastest_that_keeps_quality() -> None:
    result = a_result(1_000_000)
    assert result.cases[0].fastest(256, ours=False) == "openvino"
    assert speedups(result, 256, None, None) == [4.0]
    assert speedups(result, 256, "liftgate-exact", "ort-fp32") == [8.0]
    assert speedups(result, 256, "liftgate-fastest", None) == []
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    assert geometric_mean([]) is None


def test_the_table_says_where_we_lose_and_why_others_do_not_count() -> None:
    text = "\n".join(table(a_result(8_000_000)))
    assert "case x 256: 0.50 times OpenVINO, its default precision" in text
    assert "no: cannot quantize" in text
    assert "| case | 9 | 1 | 0 | 1.0e-06 | 1.0e-07 | 2.0e-06 |" in text
    # 1 MFLOP at 10 GFLOP/s take 0.1 ms, 100 kB at 10 GB/s a tenth of that.
    assert "| case | liftgate exact | 256 | 1.00 | 0.10 | 0.1000 | 8.0000 | 80.0 |" in text


def test_int8_graphs_are_held_against_the_int8_peak() -> None:
    peaks = Peaks(float32_gflops=10.0, int8_gops=20.0, cache_gb_s=10.0, memory_gb_s=5.0)
    assert Need(flops=2_000_000, bytes=0, int8=True).least_ms(peaks) == pytest.approx(0.1)
    assert Need(flops=2_000_000, bytes=10_000_000, int8=True).least_ms(peaks) == pytest.approx(1.0)


def test_a_worker_says_why_it_cannot_load_its_model(tmp_path: Path) -> None:
    nowhere = tmp_path / "nothing"
    job = Job(
        case="case",
        variant="ort-fp32",
        folder=tmp_path,
        base=nowhere,
        store=tmp_path,
        calibration=nowhere,
        weights=nowhere,
        users=1,
        items=1,
    )
    spec = Spec(job=job, runner="onnxruntime", path=nowhere)
    with Worker(spec, "main", cache=tmp_path, log=tmp_path / "log") as worker, pytest.raises(RunFailed, match="ort-fp32"):
        worker.ready()
