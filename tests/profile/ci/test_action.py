"""action.yml: its structure, and its script run by bash with the real command on a tiny model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from liftgate.core.requests import Requests
from liftgate.core.store import Store

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "action.yml").read_text(encoding="utf-8")
ACTION = yaml.safe_load(TEXT)
STEPS = ACTION["runs"]["steps"]
EXPRESSIONS = re.findall(r"\$\{\{\s*(.*?)\s*\}\}", TEXT) + [step["if"] for step in STEPS if "if" in step]
GATE = next(step for step in STEPS if step.get("id") == "gate")


def test_every_input_is_declared_described_and_used() -> None:
    used = set(re.findall(r"\binputs\.([\w-]+)", " ".join(EXPRESSIONS)))
    assert used == set(ACTION["inputs"])
    assert all(declared["description"] for declared in ACTION["inputs"].values())
    assert {name for name, declared in ACTION["inputs"].items() if declared.get("required")} == {"control", "treatment"}
    assert all("default" in declared or declared.get("required") for declared in ACTION["inputs"].values())


def test_every_output_comes_from_a_step_that_writes_it() -> None:
    written = set(re.findall(r'echo "([\w-]+)=', GATE["run"]))
    for step, output in re.findall(r"steps\.([\w-]+)\.outputs\.([\w-]+)", " ".join(EXPRESSIONS)):
        assert step == "gate"
        assert output in written
    assert set(ACTION["outputs"]) == written


def test_it_is_a_composite_action_whose_scripts_name_their_shell_and_paste_nothing() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in STEPS:
        assert ("uses" in step) != ("run" in step)
        if "run" in step:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"]
        else:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_results_are_kept_and_told_whatever_the_verdict() -> None:
    after = STEPS[STEPS.index(GATE) + 1 :]
    assert len(after) == 2
    assert all(step["if"].startswith("always()") for step in after)


class Job:
    """One run of the gate's step as a runner would start it."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.output, self.summary = folder / "output", folder / "summary.md"
        self.output.touch()

    def run(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        given = {name: str(declared.get("default", "")) for name, declared in ACTION["inputs"].items()}
        given |= {"store": str(self.store.root)} | {name.replace("_", "-"): value for name, value in inputs.items()}
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_WORKSPACE": str(self.folder),
            "RUNNER_TEMP": str(self.folder),
            **{name: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], value) for name, value in GATE["env"].items()},
        }
        script = self.folder / "script.sh"
        script.write_text(GATE["run"], encoding="utf-8")
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]  # as the runner starts `shell: bash`
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text(encoding="utf-8").splitlines())


@pytest.fixture
def job(tmp_path: Path, store: Store, make_model: Callable[..., object], requests: Requests) -> Job:
    make_model("v1.0")
    make_model("v1.1", noise=0.02)
    requests.write(tmp_path / "requests.parquet")
    return Job(tmp_path, store)


def test_a_pass_leaves_outputs_artifacts_and_a_summary(job: Job) -> None:
    (job.folder / "budget.toml").write_text('[[gate]]\nmetric = "size"\nmax = "1 MiB"\n')
    done = job.run(
        control="v1.0", treatment="v1.1", requests="requests.parquet", seconds="0.2", args="--launches 1\n--seed 3", trend="history"
    )
    assert done.returncode == 0, done.stderr
    assert job.outputs == {"run-folder": job.outputs["run-folder"], "verdict": "PASS", "exit-code": "0"}
    kept = {p.name for p in Path(job.outputs["run-folder"]).iterdir()}
    assert {"comparison.json", "samples.parquet", "junit.xml", "comment.md"} <= kept
    assert job.summary.read_text(encoding="utf-8").startswith("### ✅ PASS: v1.1 (against v1.0)")
    assert "::notice title=liftgate PASS::v1.1 against v1.0" in done.stdout
    assert len(list((job.folder / "history").glob("*.jsonl"))) == 1
    assert '"seed": 3' in (Path(job.outputs["run-folder"]) / "comparison.json").read_text(encoding="utf-8")


def test_a_fail_is_the_jobs_exit_code_and_stands_at_the_budgets_line(job: Job) -> None:
    (job.folder / "own budget.toml").write_text('\n[[gate]]\nmetric = "size"\nmax = "1 B"\n')
    done = job.run(control="v1.0", treatment="v1.1", budget="own budget.toml", seconds="0.2", args="--launches 1", comment_key="ranker")
    assert done.returncode == 1
    assert (job.outputs["verdict"], job.outputs["exit-code"]) == ("FAIL", "1")
    assert "::error file=own budget.toml,line=2,title=FAIL size max 1 B::size 0.01 MiB > 1 B" in done.stdout
    comment = (Path(job.outputs["run-folder"]) / "comment.md").read_text(encoding="utf-8")
    assert comment.startswith("<!-- liftgate-gate ranker -->")


def test_undecided_may_only_warn(job: Job, requests: Requests) -> None:
    requests.take(range(15)).write(job.folder / "few users.parquet")
    (job.folder / "budget.toml").write_text('[[gate]]\nmetric = "auc"\nmin = 0.1\n')
    done = job.run(control="v1.0", treatment="v1.1", requests="few users.parquet", seconds="0.2", args="--launches 1", undecided="warn")
    assert (done.returncode, job.outputs["verdict"], job.outputs["exit-code"]) == (0, "UNDECIDED", "0")
    assert "::warning title=liftgate UNDECIDED" in done.stdout


def test_a_mistake_is_an_error_with_its_sentence(job: Job) -> None:
    (job.folder / "budget.toml").write_text('[[gate]]\nmetric = "sise"\nmax = "1 B"\n')
    done = job.run(control="v1.0", treatment="$(touch hacked) v1.1")
    assert (done.returncode, job.outputs["verdict"], job.outputs["exit-code"]) == (2, "ERROR", "2")
    assert (
        "::error title=liftgate could not measure::error: budget.toml: gate 1: unknown metric 'sise'; did you mean 'size'?" in done.stdout
    )
    assert not (job.folder / "hacked").exists()
