from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.store import Store
from liftgate.profile.cli import app
from liftgate.profile.launch import WorkerHandle
from liftgate.profile.result import Comparison
from liftgate.profile.trace.explain import explain
from liftgate.profile.trace.explanation import Explanation, Explanations
from liftgate.profile.trace.trace import WORKER
from typer.testing import CliRunner

MakeTower = Callable[..., ModelArtifact]
ROOM = Path(__file__).resolve().parents[3] / "profile"
# Schemas describe documents of every kind and read none.
DOORS = {"cli.py", "schema.py"}


def test_the_operator_that_makes_a_model_slower_is_named_first(make_tower: MakeTower, store: Store) -> None:
    make_tower("v1.0")
    make_tower("v1.1", slowed=True)
    found = explain("v1.0", "v1.1", seconds=0.6, launches=3, store=store, threads=1)
    assert found.direction == "slower"
    assert (found.nodes[0].name, found.nodes[0].status, found.nodes[0].op) == ("tower/MatMul", "new", "MatMul")
    share = found.nodes[0].share
    assert share is not None
    assert share.value is not None
    assert share.value > 0.5
    assert "tower/MatMul (MatMul, new)" in found.conclusion
    assert found.unprofiled.difference_us.value is not None
    assert msgspec.json.decode(msgspec.json.encode(found), type=Explanation) == found


def test_a_comparison_is_made_and_then_explained_beside_it(make_tower: MakeTower, store: Store, tmp_path: Path) -> None:
    make_tower("v1.0")
    make_tower("v1.0-copy")
    words = ["compare", "v1.0", "v1.0-copy", "--explain", "--seconds", "0.2", "--launches", "1", "--threads", "1"]
    result = CliRunner().invoke(app, [*words, "--store", str(store.root), "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    (found,) = msgspec.json.decode((tmp_path / "run" / "explanation.json").read_bytes(), type=Explanations).explanations
    assert (found.control.name, found.treatment.name) == ("v1.0", "v1.0-copy")
    comparison = msgspec.json.decode((tmp_path / "run" / "comparison.json").read_bytes(), type=Comparison)
    assert "--explain" not in comparison.command


def test_a_profiled_worker_answers_no_service_times(make_tower: MakeTower, store: Store, tmp_path: Path, requests_file: Path) -> None:
    artifact = make_tower("v1.0")
    worker = WorkerHandle("v1.0", [0], 1, module=WORKER)
    try:
        worker.open(artifact.path, store.root, requests_file, 1)
        assert worker.block((0, 1, 2), 0).samples == b""
    finally:
        worker.kill()


@pytest.fixture
def requests_file(tmp_path: Path) -> Path:
    from liftgate.core.requests import Requests  # noqa: PLC0415

    path = tmp_path / "requests.parquet"
    rows: dict[str, Sequence[object]] = {
        "request_id": ["a", "b", "c"],
        "user_id": ["u", "v", "w"],
        "user": [1, 2, 3],
        "item": [[4, 5], [6, 7], [8, 9]],
    }
    Requests.of(rows).write(path)
    return path


def test_nothing_that_judges_knows_of_profiled_runs() -> None:
    wrong = []
    for file in ROOM.rglob("*.py"):
        if file.name in DOORS or "trace" in file.relative_to(ROOM).parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and "trace" in (node.module or "").split("."):
                wrong.append(f"{file.relative_to(ROOM)} -> {node.module}")
    assert wrong == []


def test_no_profiled_time_is_of_a_type_that_judging_reads() -> None:
    # What is judged is a Run, and only `measure` and its like make one.
    makers = []
    for file in (ROOM / "trace").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                makers += [alias.name for alias in node.names if alias.name in {"Run", "Samples", "SampleBlock", "measure", "Evidence"}]
    assert makers == []
