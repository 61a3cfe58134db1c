from __future__ import annotations

import json
from pathlib import Path

import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.cli import app
from typer.testing import CliRunner, Result


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_bare_archive_is_quantized_in_one_command(archive: Path, tmp_path: Path) -> None:
    result = run("quantize", archive, "--int8", "--store", tmp_path)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("v1.1-int8  ")
    assert "embedding tables untouched" in result.stdout
    assert result.stderr == ""


def test_json_is_the_manifest_and_the_words_go_to_standard_error(exported: ModelArtifact, store: Store) -> None:
    result = run("prune", "v1.1", "--keep", "0.5", "--store", store.root, "--json", "-")
    assert json.loads(result.stdout)["recipe"] == "prune-0.5@1"
    assert "mlp.0 32 -> 16" in result.stderr


def test_export_takes_requests_and_a_name(archive: Path, requests: Requests, tmp_path: Path) -> None:
    requests.write(tmp_path / "sample.parquet")
    result = run("export", archive, "--requests", tmp_path / "sample.parquet", "--name", "mine", "--store", tmp_path / "store")
    assert result.exit_code == 0, result.stderr
    assert "ONNX Runtime agrees with PyTorch at 1 row, 2 rows, 7 rows, 256 rows" in result.stdout


def test_inspect_shows_roles_operators_and_lineage(exported: ModelArtifact, store: Store) -> None:
    run("apply", "prune", "v1.1", "--store", store.root)
    shown = run("inspect", "v1.1-prune", "--store", store.root).stdout
    row = next(line for line in shown.splitlines() if "history" in line)
    name, dtype, _, role, table_rows = (part.strip() for part in row.strip("│").split("│"))
    assert (name, dtype, role, table_rows) == ("history", "int64", "request", "50")
    assert "Gather 3" in shown
    assert "prune@1" in shown
    assert "request-only" in shown


def test_inspect_looks_at_a_bare_archive_and_stores_nothing(archive: Path, requests: Requests, tmp_path: Path) -> None:
    requests.write(tmp_path / "sample.parquet")
    options = ("--requests", tmp_path / "sample.parquet", "--candidates", 10, "--store", tmp_path / "store")
    result = run("inspect", archive, *options, "--json", "-")
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    assert found["cost"]["sizes"]["candidates"] == 10
    assert found["flops"]["total"] == found["flops"]["request"] + found["flops"]["candidate"] + found["flops"]["constant"]
    assert "per request of 10 candidates" in result.stderr
    assert not (tmp_path / "store").exists()


def test_recipes_lists_what_is_shipped() -> None:
    shown = run("recipes").stdout
    assert "int8-safe@" in shown
    assert "prune-int8@1" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "nope.pt"), "nope.pt: expected a model file, found nothing"),
        (("quantize", "nope.pt", "--int8"), "nope.pt: expected a model file, found nothing"),
        (("quantize", "v9", "--int8"), "unknown model 'v9'"),
        (("quantize", "v1.1"), "add --int8 for speed, --weights-only for memory"),
        (("quantize", "v1.1", "--int8", "--fp16"), "expected one precision, found --int8 and --fp16"),
        (("quantize", "v1.1", "--int8", "--static"), "add --requests FILE"),
        (("quantize", "v1.1", "--int8", "--tune"), "--tune: expected --int8 --static, found --int8"),
        (("quantize", "v1.1", "--fp16", "--static"), "--static: expected --int8, found --fp16"),
        (("quantize", "v1.1", "--int8", "--bits", "4"), "expected no --bits, found --bits; it goes with `--weights-only`"),
        (("quantize", "v1.1", "--weights-only", "--bits", "5"), "--weights-only: Invalid enum value 5"),
        (
            ("quantize", "v1.1", "--int8", "--static", "--tune", "--per-tensor", "--requests", "x.parquet"),
            "no --per-channel or --per-tensor",
        ),
        (("prune", "v1.1", "--keep", "0.5", "--multiple-of", "0"), "expected a number from 1 to 256, found 0"),
        (("prune", "v1.1", "--keep", "1.5"), "expected a share between 0 and 1, found 1.5"),
        (("apply", "int9", "v1.1"), "unknown recipe 'int9'"),
        (("inspect", "nothing-here"), "unknown model 'nothing-here'"),
        (("inspect", "v1.1", "--dim", "history"), "--dim: expected NAME=SIZE, found 'history'"),
        (("export", "x.pt", "--name", "a/b"), "--name: expected letters"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    result = run(*arguments, "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Store(tmp_path / "store").names() == []


def test_a_column_that_the_signature_lacks_is_one_line(archive: Path, requests: Requests, tmp_path: Path) -> None:
    Requests(requests.table.append_column("price", [[1.0] * len(requests)]), source="x").write(tmp_path / "x.parquet")
    result = run("export", archive, "--requests", tmp_path / "x.parquet", "--store", tmp_path / "store")
    assert result.exit_code == 2
    assert "unknown column 'price'" in result.stderr
