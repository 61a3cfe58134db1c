"""What `optimize prune` makes of its options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.store import Store
from liftgate.optimize.cli import app
from typer.testing import CliRunner, Result

from .conftest import make_requests


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["prune", "v1.1", *(str(a) for a in arguments)])


def test_units_and_ranks_within_an_error_in_one_command(exported: ModelArtifact, store: Store, tmp_path: Path) -> None:
    make_requests(80).write(tmp_path / "sample.parquet")
    options = (
        "--max-error",
        0.9,
        "--low-rank",
        0.9,
        "--multiple-of",
        1,
        "--requests",
        tmp_path / "sample.parquet",
        "--store",
        store.root,
        "--json",
        "-",
    )
    result = run(*options)
    assert result.exit_code == 0, result.stderr
    manifest = json.loads(result.stdout)
    assert manifest["recipe"] == "prune-error-0.9-low-rank-0.9@1"
    steps = [(step["kind"], step["settings"]) for step in manifest["steps"][1:]]
    assert steps == [
        ("prune", {"keep": None, "max_error": 0.9, "refit": True, "multiple_of": 1, "exclude": ""}),
        ("low_rank", {"max_error": 0.9, "multiple_of": 1, "exclude": ""}),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected what to remove, found nothing; add --max-error 0.01"),
        (("--keep", "0.5", "--max-error", "0.1"), "prune: expected either keep or max error, found keep and max error"),
        (("--heads", "0.5", "--exclude", "mlp.0"), "expected hidden layers to prune, found none"),
        (("--max-error", "0.1"), "an error can only be measured on requests, and there are none; add --requests FILE"),
        (("--heads", "0.5"), "which heads matter can only be seen on requests"),
    ],
)
def test_what_cannot_be_done_is_said(exported: ModelArtifact, store: Store, options: tuple[str, ...], message: str) -> None:
    result = run(*options, "--store", store.root)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
