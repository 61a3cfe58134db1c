"""What docs/ci.md and docs/pytest.md show is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from liftgate.profile.cli import app
from liftgate.profile.testing import latency_mark
from typer.main import get_command

ROOT = Path(__file__).resolve().parents[3]
CI = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
PYTEST = (ROOT / "docs" / "pytest.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
WORKFLOWS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", CI, re.DOTALL)]

pytest_plugins = ["pytester"]


def test_the_workflow_uses_inputs_and_outputs_that_the_action_has() -> None:
    steps = WORKFLOWS[0]["jobs"]["gate"]["steps"]
    used = next(step for step in steps if step.get("id") == "gate")
    assert set(used["with"]) <= set(ACTION["inputs"])
    assert {"control", "treatment"} <= set(used["with"])
    assert set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", CI)) <= set(ACTION["outputs"])


def test_every_input_and_output_of_the_action_is_explained() -> None:
    table = CI[CI.index("| Input |") : CI.index("**Pull requests from forks**")]
    assert {name for name in (*ACTION["inputs"], *ACTION["outputs"]) if f"`{name}`" not in table} == set()


def test_the_gitlab_job_shows_the_junit_file_that_it_writes() -> None:
    job = WORKFLOWS[2]["gate"]
    script = " ".join(job["script"])
    assert f"--junit {job['artifacts']['reports']['junit']}" in script
    assert "profile comment gate/comment.md" in job["after_script"][0]
    assert "--comment gate/comment.md" in script


def test_every_option_that_is_named_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group
    known = {
        option for name in ("gate", "comment", "trend", "schema") for p in commands[name].params for option in p.opts + p.secondary_opts
    }
    known |= {"--liftgate-off", "--liftgate-strict", "--junit-xml"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", CI + PYTEST)) - known == set()


def test_every_key_of_the_mark_is_explained() -> None:
    table = PYTEST[PYTEST.index("| Key |") : PYTEST.index("Marks of a class")]
    fields = latency_mark.LatencyMark.__struct_fields__
    assert set(re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines() if row.startswith("| `")))) == set(fields)


def test_the_example_of_the_plugin_runs_as_it_stands(pytester: pytest.Pytester) -> None:
    match = re.search(r"<!-- example: pytest -->\n```python\n(.*?)```", PYTEST, re.DOTALL)
    assert match is not None
    pytester.makepyfile(match[1])
    done = pytester.runpytest_inprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider", "--strict-markers")
    outcomes = done.parseoutcomes()
    assert sum(outcomes.get(kind, 0) for kind in ("passed", "skipped")) == 2  # a busy machine may disturb, 600 times the time may not pass
    assert "failed" not in outcomes
    assert "latency budgets" in str(done.stdout)
