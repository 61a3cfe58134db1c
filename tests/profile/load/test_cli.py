from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from liftgate.cli import app
from liftgate.core.artifact import ModelArtifact
from liftgate.core.store import Store
from typer.testing import CliRunner

MakeModel = Callable[..., ModelArtifact]


@pytest.fixture
def run(make_model: MakeModel, store: Store) -> Callable[..., tuple[int, str, str]]:
    make_model("v1.0")

    def profile(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["profile", *arguments, "--store", str(store.root)])
        return done.exit_code, done.stdout, done.stderr

    return profile


Run = Callable[..., tuple[int, str, str]]


def test_load_prints_a_table_and_writes_json_and_samples(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, stdout, stderr = run("load", "v1.0", "--rate", "300", "--seconds", "0.1", "--launches", "1", "--out", str(out), "--json", "-")
    assert code == 0, stderr
    assert json.loads(stdout)["kind"] == "load"
    assert "Poisson, 300 requests/s" in stderr
    assert sorted(path.name for path in out.iterdir()) == ["load.json", "load_samples.parquet"]


def test_a_trace_is_scaled_to_the_rate(run: Run, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("time\n" + "\n".join(str(i) for i in range(50)))
    code, stdout, _ = run("load", "v1.0", "--trace", str(trace), "--rate", "400", "--seconds", "0.1", "--launches", "1", "--json", "-")
    found = json.loads(stdout)["arrivals"]
    assert code == 0
    assert (found["process"], found["rate_per_s"], found["recorded_per_s"]) == ("trace", 400, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("load", "v1.0"), "expected a rate or a trace, found neither; give --rate 200 or --trace FILE"),
        (("load", "v1.0", "--rate", "-3"), "--rate: expected requests per second"),
        (("load", "v9", "--rate", "100"), "v9"),
        (("load", "v1.0", "--rate", "100", "--budget", "fast"), "--budget: expected limits"),
        (("load", "v1.0", "--rate", "100", "--instance", "m5.lrage"), "did you mean 'm5.large'"),
        (("sweep", "v1.0", "--budget", "p95 20"), "--budget: expected a number with a unit"),
        (("sweep", "v1.0", "--budget", "p95 20 ms", "--seconds", "0"), "--seconds: expected more than 0"),
        (("coldstart", "v1.0", "--launches", "0"), "--launches: expected 1 to 1000"),
        (("run", "v1.0", "--batch", "many"), "--batch: expected numbers"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, stdout, stderr = run(*arguments)
    assert (code, stdout) == (2, "")
    assert words in stderr
    assert "Traceback" not in stderr
