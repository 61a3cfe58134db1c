from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.machine import this_machine
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.budget import parse_budget
from liftgate.profile.calibrate import Calibration, QuantileNoise, calibrate, check_margins, find_calibration, remember
from liftgate.profile.compare import compare
from liftgate.profile.inputs import load_placements, load_subjects
from liftgate.profile.measure import Run
from liftgate.profile.samples import SampleBlock, Samples
from liftgate.profile.sequential import PairedRounds

MakeModel = Callable[..., ModelArtifact]
GATE = '[[gate]]\nmetric = "latency_{}"\nmax_regress = "{}"\n'


def calibration(model: ModelArtifact, requests: Requests, *, spread: float = 0.02) -> Calibration:
    """10 comparisons of 8 launches of 20 rounds, whose log ratios have standard deviation `spread` at p50 and 5 times that at p99."""
    rng = np.random.default_rng(0)

    def noise(quantile: str, size: float) -> QuantileNoise:
        rounds = rng.normal(0, size, (80, 20))
        paired = PairedRounds(rounds=tuple(map(tuple, rounds.tolist())), launches=tuple(np.median(rounds, axis=1).tolist()))
        return QuantileNoise(quantile=quantile, paired=paired, alarms=0)

    return Calibration(
        machine=this_machine(),
        tools={},
        instance="local",
        label="measured",
        threads=1,
        model=model.manifest.name,
        digest=model.manifest.digest,
        requests=requests.ref,
        comparisons=10,
        seconds=20.0,
        noise=(noise("p50", spread), noise("p95", spread * 2), noise("p99", spread * 5)),
        unsteady=(),
        at="2026-01-01T00:00:00+00:00",
    )


def test_the_tightest_margin_shrinks_with_time_and_grows_with_noise(make_model: MakeModel, requests: Requests) -> None:
    found = calibration(make_model("v1.0"), requests)
    margins = {(q, s): found.tightest(q, 0.05, s) or math.inf for q in ("p50", "p99") for s in (20.0, 320.0)}
    assert margins["p50", 320.0] < margins["p50", 20.0] / 2
    assert margins["p99", 20.0] == pytest.approx(5 * margins["p50", 20.0], rel=0.3)


def test_a_gate_tighter_than_the_machine_can_tell_is_refused_with_the_time_it_would_take(make_model: MakeModel, requests: Requests) -> None:
    found = calibration(make_model("v1.0"), requests)
    check_margins(parse_budget(GATE.format("p50", "5%")), found, 20.0)
    with pytest.raises(
        InputError, match=r"budget: gate 1: latency_p99 max_regress 2% on local is tighter than this machine can judge"
    ) as refused:
        check_margins(parse_budget(GATE.format("p99", "2%")), found, 20.0)
    longer = found.seconds_for("p99", 0.05, 0.02, least=20.0)
    assert longer is not None
    assert f"--seconds {longer:g} would do" in refused.value.fix
    check_margins(parse_budget(GATE.format("p99", "2%")), found, longer)


def test_a_margin_of_nothing_is_out_of_reach(make_model: MakeModel, requests: Requests) -> None:
    found = calibration(make_model("v1.0"), requests)
    with pytest.raises(InputError, match="tighter than this machine can judge") as refused:
        check_margins(parse_budget(GATE.format("p50", "0%")), found, 20.0)
    assert "--seconds" not in refused.value.fix


def test_a_calibration_belongs_to_its_model_and_threads(make_model: MakeModel, requests: Requests, store: Store) -> None:
    mine, other = make_model("v1.0"), make_model("v1.1", noise=0.1)
    found = calibration(mine, requests)
    remember(found, store)
    subjects = load_subjects([mine, other], store)
    assert find_calibration(store, "local", 1, subjects[0]) == found
    assert find_calibration(store, "local", 2, subjects[0]) is None
    assert find_calibration(store, "local", 1, subjects[1]) is None


def test_a_damaged_calibration_is_named(make_model: MakeModel, requests: Requests, store: Store) -> None:
    model = make_model("v1.0")
    remember(calibration(model, requests), store)
    (file,) = (store.root / "calibrations").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is no calibration of this version"):
        find_calibration(store, "local", 1, load_subjects([model], store)[0])


def test_compare_refuses_what_was_calibrated_before_it_measures_anything(make_model: MakeModel, requests: Requests, store: Store) -> None:
    model = make_model("v1.0")
    remember(calibration(model, requests), store)
    budget = parse_budget(GATE.format("p95", "0.1%"))
    with pytest.raises(InputError, match="tighter than this machine can judge"):
        compare(model, model, requests=requests, budget=budget, store=store, threads=1)


def test_calibrating_remembers_what_it_saw(make_model: MakeModel, requests: Requests, store: Store) -> None:
    model = make_model("v1.0")
    try:
        found = calibrate(model, requests=requests, comparisons=2, seconds=0.3, launches=3, store=store, threads=1)
    except RunFailed as error:
        pytest.skip(f"this machine is too busy: {error}")
    assert find_calibration(store, "local", 1, load_subjects([model], store)[0]) == found
    assert [n.quantile for n in found.noise] == ["p50", "p95", "p99"]
    assert len(found.noise[0].paired.launches) == 6
    assert msgspec.json.decode(msgspec.json.encode(found), type=Calibration) == found


def fake_runs(monkeypatch: pytest.MonkeyPatch, spoiled: set[int]) -> None:
    """Measuring is replaced: comparison `seed` is INVALID if it is one of `spoiled`, and as noisy as the others."""
    rng = np.random.default_rng(0)

    def measured(*_: object, seed: int, **__: object) -> Run:
        blocks = tuple(
            SampleBlock(model=model, launch=launch, round=launch * 4 + r, turn=model, requests=np.arange(4), ns=rng.integers(90, 110, 4))
            for launch in range(3)
            for r in range(4)
            for model in range(2)
        )
        samples = Samples(instance="local", models=("v1.0", "v1.0"), request_ids=("a", "b", "c", "d"), blocks=blocks)
        invalid = ("swapped",) if seed in spoiled else ()
        placement = load_placements(["local"], 1)[0]
        return Run(placement=placement, samples=samples, launches=(), planned=3, invalid=invalid, candidates=(1,), measured_s=1.0)

    monkeypatch.setattr("liftgate.profile.calibrate.measure", measured)


def test_a_spoiled_comparison_is_made_again(
    make_model: MakeModel, requests: Requests, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runs(monkeypatch, spoiled={0, 2})
    found = calibrate(make_model("v1.0"), requests=requests, comparisons=4, seconds=1.0, launches=3, store=store, threads=1)
    assert (found.comparisons, found.spoiled) == (4, ("swapped", "swapped"))
    assert len(found.noise[0].paired.launches) == 12


def test_a_machine_that_spoils_most_comparisons_is_refused(
    make_model: MakeModel, requests: Requests, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_runs(monkeypatch, spoiled=set(range(1, 100)))
    with pytest.raises(RunFailed, match="3 of 4 comparisons cannot be trusted: swapped"):
        calibrate(make_model("v1.0"), requests=requests, comparisons=4, seconds=1.0, launches=3, store=store, threads=1)
    assert not (store.root / "calibrations").exists()


def test_comparing_once_is_no_calibration(make_model: MakeModel, store: Store) -> None:
    with pytest.raises(InputError, match="--comparisons: expected 2 to 1000, found 1"):
        calibrate(make_model("v1.0"), comparisons=1, store=store)
