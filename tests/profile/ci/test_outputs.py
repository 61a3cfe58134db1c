from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from liftgate.core.files import sha256_of
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.profile.cli import app
from typer.testing import CliRunner, Result

BUDGET = '[[gate]]\nmetric = "size"\nmax = "1 MiB"\n[[gate]]\nmetric = "ndcg@10"\nmax_drop = "5%"\n'
QUIET = dict.fromkeys(("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE"))


@pytest.fixture
def gate(tmp_path: Path, store: Store, make_model: Callable[..., object], requests: Requests) -> Callable[..., Result]:
    make_model("v1.0")
    make_model("v1.1", noise=0.02)
    requests.write(tmp_path / "requests.parquet")
    (tmp_path / "budget.toml").write_text(BUDGET)

    def run(*options: str, **environment: str) -> Result:
        words = ["gate", "v1.0", "v1.1", "--store", str(store.root), "--budget", str(tmp_path / "budget.toml")]
        words += ["--requests", str(tmp_path / "requests.parquet"), "--seconds", "0.1", "--launches", "1", "--out", str(tmp_path / "run")]
        return CliRunner().invoke(app, [*words, *options], env={**QUIET, **environment})

    return run


def schema_of(document: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["schema", document])
    assert done.exit_code == 0
    schema: dict[str, object] = json.loads(done.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def test_a_real_result_keeps_to_the_published_schemas(gate: Callable[..., Result], tmp_path: Path) -> None:
    gate("--trend", str(tmp_path / "trend"))
    result = json.loads((tmp_path / "run" / "comparison.json").read_text())
    jsonschema.validate(result, schema_of("comparison"))
    jsonschema.validate(tomllib.loads(BUDGET), schema_of("budget"))
    line = next((tmp_path / "trend").iterdir()).read_text()
    jsonschema.validate(json.loads(line), schema_of("trend"))
    assert result["samples_sha256"] == sha256_of(tmp_path / "run" / "samples.parquet") == json.loads(line)["samples_sha256"]


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ("comparison", {"schema_version": 2}),
        ("budget", {"gate": [{"metric": "size", "maxx": "1 MiB"}]}),
        ("budget", {"gate": []}),
        ("trend", {"version": 1, "outcome": "MAYBE"}),
    ],
)
def test_a_schema_refuses_what_liftgate_refuses(document: str, value: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(value, schema_of(document))


def test_outside_ci_only_what_was_asked_for_is_written(gate: Callable[..., Result], tmp_path: Path) -> None:
    done = gate("--junit", str(tmp_path / "new" / "junit.xml"))
    assert "::" not in done.stdout
    assert (tmp_path / "new" / "junit.xml").read_text().count("<testcase") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["budget.toml", "new", "requests.parquet", "run", "store"]


def test_in_a_github_job_summary_and_annotations_come_by_themselves(gate: Callable[..., Result], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    done = gate(GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert "::notice title=liftgate PASS::v1.1 against v1.0: Both gates passed." in done.stdout
    assert summary.read_text(encoding="utf-8").startswith("before\n### ✅ PASS: v1.1 (against v1.0)\n")
    assert "::" not in gate("--no-annotations", GITHUB_ACTIONS="true").stdout


def test_a_full_summary_is_left_as_it_is(gate: Callable[..., Result], tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    summary.write_bytes(b"x" * 1_048_570)
    assert gate("--summary", str(summary)).exit_code == 0
    assert summary.stat().st_size == 1_048_570


def test_json_on_standard_output_stays_json(gate: Callable[..., Result], tmp_path: Path) -> None:
    done = gate("--json", "-", "--annotations", "--trend", str(tmp_path / "t.jsonl"))
    assert json.loads(done.stdout)["kind"] == "comparison"
    assert "::notice" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--junit", "budget.toml/x.xml"),
        ("--comment", "."),
        ("--summary", "budget.toml/s.md"),
        ("--trend", "budget.toml/t"),
        ("--comment-key", "a b"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_before_anything_is_measured(
    gate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, option: str, value: str
) -> None:
    monkeypatch.setattr("liftgate.profile.compare.measure", lambda *_, **__: pytest.fail("measured"))
    done = gate(option, value if option == "--comment-key" else str(tmp_path / value))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_the_history_is_shown_and_written_as_json(gate: Callable[..., Result], tmp_path: Path) -> None:
    for _ in range(2):
        gate("--trend", str(tmp_path / "trend"))
    shown = CliRunner().invoke(app, ["trend", str(tmp_path / "trend"), "--json", str(tmp_path / "out.json")])
    assert "2 runs" in shown.stdout
    assert "history for people: no gate is decided by it" in shown.stdout
    assert len(json.loads((tmp_path / "out.json").read_text())["lines"]) == 2
    assert CliRunner().invoke(app, ["trend", str(tmp_path / "none")]).exit_code == 2
