from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.core.verdict import Outcome
from liftgate.profile.budget import parse_budget
from liftgate.profile.cli import app
from liftgate.profile.compare import compare
from liftgate.profile.inputs import load_requests, load_subjects
from liftgate.profile.result import Comparison
from liftgate.profile.run_folder import check_folder
from typer.testing import CliRunner

MakeModel = Callable[..., ModelArtifact]
BUDGET = '[[gate]]\nmetric = "size"\nmax = "{}"\n[[gate]]\nmetric = "ndcg@10"\nmax_drop = "5%"\n'


def test_a_comparison_holds_latency_quality_and_a_verdict(make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path) -> None:
    make_model("v1.0")
    make_model("v1.1", noise=0.02)
    budget = parse_budget(BUDGET.format("1 MiB"))
    found = compare("v1.0", "v1.1", requests=requests, budget=budget, seconds=0.2, launches=2, store=store, run_dir=tmp_path / "run")
    assert found.control.name == "v1.0"
    assert [i.instance for i in found.instances] == ["local"]
    assert [m.model.name for m in found.instances[0].models] == ["v1.0", "v1.1"]
    assert [c.quantile for c in found.instances[0].changes["v1.1"]] == ["p50", "p95", "p99"]
    candidate = found.candidates[0]
    assert {(q.metric, q.segment) for q in candidate.quality} == {(m, s) for m in ("ndcg@10", "auc") for s in ("all", "casual", "power")}
    assert candidate.verdict is not None
    assert [f.outcome for f in candidate.verdict.findings] == [Outcome.PASS, Outcome.PASS]
    assert found.command == ""
    assert "no command repeats this comparison: the requests came from memory and the budget came from memory" in found.notes
    assert msgspec.json.decode((tmp_path / "run" / "comparison.json").read_bytes(), type=Comparison) == found
    assert set(pq.read_table(tmp_path / "run" / "samples.parquet")["model"].to_pylist()) == {"v1.0", "v1.1"}
    per_user = pq.read_table(tmp_path / "run" / "quality_per_user.parquet").to_pylist()
    mine = [row["value"] for row in per_user if (row["model"], row["metric"], row["segment"]) == ("v1.1", "auc", "all")]
    auc = next(q for q in candidate.quality if (q.metric, q.segment) == ("auc", "all"))
    assert auc.treatment.value == pytest.approx(sum(mine) / len(mine))


def test_quality_does_not_depend_on_the_clock(make_model: MakeModel, requests: Requests, store: Store) -> None:
    make_model("v1.0")
    make_model("v1.1", noise=0.3)
    first, second = (compare("v1.0", "v1.1", requests=requests, seconds=0.1, launches=1, seed=3, store=store) for _ in range(2))
    assert first.candidates[0].quality == second.candidates[0].quality


def test_without_requests_they_are_generated_and_quality_stays_unknown(make_model: MakeModel, store: Store) -> None:
    make_model("v1.0")
    found = compare("v1.0", "v1.0", seconds=0.1, launches=1, store=store)
    assert found.requests.generated
    assert (found.quality, found.candidates[0].quality, found.candidates[0].verdict) == ((), (), None)
    assert any("generated from the signature" in note for note in found.notes)
    assert found.candidates[0].model.name == "v1.0 (2)"


def test_models_with_different_inputs_are_compared_on_the_same_requests(make_model: MakeModel, requests: Requests, store: Store) -> None:
    make_model("v1.0")
    make_model("v2.0", priced=True)
    free = pa.array([[0.0] * 30] * len(requests), type=pa.list_(pa.float32()))
    wider = Requests(requests.table.append_column("price", free), source="wider")
    found = compare("v1.0", "v2.0", requests=wider, seconds=0.1, launches=1, store=store)
    # Everything is free, so the price changes no score.
    assert [q.difference.value for q in found.candidates[0].quality] == [0.0] * 6
    assert found.instances[0].models[1].samples > 0
    with pytest.raises(UnknownName, match="unknown column 'price'"):
        compare("v1.0", "v1.0", requests=wider, store=store)


def test_generated_requests_serve_the_inputs_of_all_models(make_model: MakeModel, store: Store) -> None:
    subjects = load_subjects([make_model("v1.0"), make_model("v2.0", priced=True)], store)
    assert load_requests(None, subjects, seed=0).input_columns == ["user", "item", "price"]


def test_everything_wrong_is_said_before_anything_is_measured(make_model: MakeModel, requests: Requests, store: Store) -> None:
    make_model("v1.0")
    with pytest.raises(UnknownName, match=r"unknown model 'v1.1'"):
        compare("v1.0", "v1.1", store=store)
    with pytest.raises(InputError, match="at least one treatment"):
        compare("v1.0", store=store)
    with pytest.raises(InputError, match="--seconds"):
        compare("v1.0", "v1.0", seconds=0, store=store)
    with pytest.raises(UnknownName, match="unknown instance"):
        compare("v1.0", "v1.0", instances=("m5",), store=store)
    budget = parse_budget('[[gate]]\nmetric = "auc"\nmin = 0.1\nsegment = "casul"\n')
    with pytest.raises(UnknownName, match="gate 1: unknown segment 'casul'; did you mean 'casual'"):
        compare("v1.0", "v1.0", requests=requests, budget=budget, store=store)
    with pytest.raises(InputError, match="gate 1: expected labelled requests, which auc needs, found generated requests"):
        compare("v1.0", "v1.0", budget=budget, store=store)
    with pytest.raises(UnknownName, match="unknown column 'item'"):
        compare("v1.0", "v1.0", requests=Requests(requests.table.drop_columns(["item"]), source="cut"), store=store)


@pytest.mark.parametrize(("limit", "word"), [("1 MiB", Outcome.PASS), ("1 B", Outcome.FAIL)])
def test_the_gate_command_exits_with_its_verdict(
    limit: str, word: Outcome, *, make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path
) -> None:
    make_model("v1.0")
    make_model("v1.1", noise=0.02)
    requests.write(tmp_path / "requests.parquet")
    (tmp_path / "budget.toml").write_text(BUDGET.format(limit))
    options = ["--budget", str(tmp_path / "budget.toml"), "--requests", str(tmp_path / "requests.parquet"), "--store", str(store.root)]
    done = CliRunner().invoke(app, ["gate", "v1.0", "v1.1", *options, "--seconds", "0.1", "--launches", "1"])
    assert done.exit_code == word.exit_code
    assert re.search(rf"^{word}  v1\.1$", done.stdout, re.MULTILINE)
    folder = re.search(r"liftgate report (\S+)", done.stdout)
    assert folder is not None
    assert (Path(folder[1]) / "comparison.json").is_file()


def test_an_undecided_gate_exits_3_or_0_when_told(make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path) -> None:
    make_model("v1.0")
    requests.take(range(15)).write(tmp_path / "few_users.parquet")
    (tmp_path / "budget.toml").write_text('[[gate]]\nmetric = "auc"\nmin = 0.1\n')
    command = [
        "gate",
        "v1.0",
        "v1.0",
        "--budget",
        str(tmp_path / "budget.toml"),
        "--requests",
        str(tmp_path / "few_users.parquet"),
        "--store",
        str(store.root),
        "--seconds",
        "0.1",
        "--launches",
        "1",
    ]
    assert CliRunner().invoke(app, command).exit_code == 3
    assert CliRunner().invoke(app, [*command, "--undecided", "warn"]).exit_code == 0


def test_a_mistake_is_one_line_and_exit_2(store: Store, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "v1.0", "v1.1", "--store", str(store.root), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: store ")
    assert not (tmp_path / "out").exists()


def test_the_command_repeats_the_comparison(make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path) -> None:
    models = [make_model("v1.0"), make_model("v1.1", noise=0.02)]
    file = tmp_path / "requests.parquet"
    requests.write(file)
    found = compare(*models, requests=file, metrics=("auc",), seconds=0.1, launches=1, store=store, threads=1)
    options = f"--metric auc --seconds 0.1 --launches 1 --seed 0 --threads 1 --store {store.root}"
    assert found.command == f"profile compare v1.0 v1.1 --requests {file} {options}"
    done = CliRunner().invoke(app, [*shlex.split(found.command)[1:], "--out", str(tmp_path / "again")])
    assert done.exit_code == 0
    again = msgspec.json.decode((tmp_path / "again" / "comparison.json").read_bytes(), type=Comparison)
    assert (again.command, again.candidates) == (found.command, found.candidates)


def test_a_run_leaves_nothing_of_an_earlier_one_in_its_folder(
    make_model: MakeModel, requests: Requests, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("v1.0")
    folder = tmp_path / "run"
    compare("v1.0", "v1.0", requests=requests, seconds=0.1, launches=1, store=store, run_dir=folder)
    compare("v1.0", "v1.0", seconds=0.1, launches=1, store=store, run_dir=folder)
    assert sorted(p.name for p in folder.iterdir()) == ["comparison.json", "samples.parquet"]

    def full(*_: object) -> None:
        raise InputError("samples.parquet", "no space left")

    monkeypatch.setattr("liftgate.profile.run_folder.write_samples", full)
    with pytest.raises(InputError, match="no space left"):
        compare("v1.0", "v1.0", seconds=0.1, launches=1, store=store, run_dir=folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("option", "place"), [("--out", "file/run"), ("--out", "file"), ("--json", "file/x.json"), ("--json", "folder")])
def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(
    option: str, place: str, *, make_model: MakeModel, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model("v1.0")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("liftgate.profile.compare.measure", lambda *_, **__: pytest.fail("measured"))
    done = CliRunner().invoke(app, ["compare", "v1.0", "v1.0", "--store", str(store.root), option, str(tmp_path / place)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {tmp_path}/")
    assert done.stderr.count("\n") == 1


def test_looking_whether_a_folder_can_be_written_leaves_no_trace(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_gate_with_a_rate_is_measured_in_an_open_loop_and_named_so(make_model: MakeModel, requests: Requests, store: Store) -> None:
    make_model("v1.0")
    budget = parse_budget('[[gate]]\nmetric = "latency_p50"\nrate = "100/s"\nmax = "60 s"\n')
    found = compare("v1.0", "v1.0", requests=requests, budget=budget, instances=(), seconds=0.2, launches=3, store=store, threads=1)
    (only,) = found.instances
    assert (only.instance, only.rate_per_s, only.name) == ("local", 100.0, "local@100/s")
    verdict = found.candidates[0].verdict
    assert verdict is not None
    assert verdict.findings[0].gate == "latency_p50 max 60 s on local@100/s"
    assert " on local@100/s (measured)" in verdict.findings[0].reason
