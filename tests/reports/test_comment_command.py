from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from liftgate.profile.cli import app
from typer.testing import CliRunner, Result

from .forge_service import Service, serving

MARKER = "<!-- liftgate-gate gate -->"
NONE = dict.fromkeys(
    (
        "GITHUB_TOKEN",
        "GITHUB_REPOSITORY",
        "GITHUB_REF",
        "GITHUB_EVENT_PATH",
        "GITHUB_API_URL",
        "CI_API_V4_URL",
        "CI_PROJECT_ID",
        "CI_MERGE_REQUEST_IID",
        "GITLAB_TOKEN",
    )
)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "comment.md"
    path.write_text(f"{MARKER}\n### ✅ PASS: v1.1 (against v1.0)\n", encoding="utf-8")
    return path


def comment(file: Path, *options: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["comment", str(file), *options], env={**NONE, **environment})


def test_a_github_job_needs_no_options(service: Service, file: Path, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text('{"action": "opened", "number": 7, "pull_request": {"number": 7, "title": "x"}}')
    job = {"GITHUB_TOKEN": "t", "GITHUB_REPOSITORY": "acme/ranker", "GITHUB_API_URL": service.url, "GITHUB_EVENT_PATH": str(event)}
    assert comment(file, **job).output == "comment 1 created\n"
    assert comment(file, **job).output == "comment 1 unchanged\n"
    assert service.seen[1] == "POST /repos/acme/ranker/issues/7/comments"


def test_the_ref_of_a_pull_request_is_enough(service: Service, file: Path) -> None:
    job = {"GITHUB_TOKEN": "t", "GITHUB_REPOSITORY": "acme/ranker", "GITHUB_API_URL": service.url, "GITHUB_REF": "refs/pull/31/merge"}
    comment(file, **job)
    assert service.seen[-1].endswith("/issues/31/comments")


def test_a_gitlab_job_needs_a_token_only(service: Service, file: Path) -> None:
    job = {"CI_API_V4_URL": f"{service.url}/api/v4", "CI_PROJECT_ID": "42", "CI_MERGE_REQUEST_IID": "5"}
    missing = comment(file, **job)
    assert missing.exit_code == 2
    assert "set GITLAB_TOKEN to a project access token with scope api" in missing.output
    assert comment(file, GITLAB_TOKEN="t", **job).output == "comment 1 created\n"
    assert service.seen[-1] == "POST /api/v4/projects/42/merge_requests/5/notes"


@pytest.mark.parametrize(("options", "code"), [((), 2), (("--best-effort",), 0)])
def test_a_fork_without_permission_is_a_note_when_asked(service: Service, file: Path, options: tuple[str, ...], code: int) -> None:
    service.refusals = [("POST", 403)]
    done = comment(file, "--repo", "acme/ranker", "--pr", "7", *options, GITHUB_TOKEN="s3cret", GITHUB_API_URL=service.url)
    assert done.exit_code == code
    assert "the token may not write comments here, as for a pull request from a fork" in done.output
    assert "s3cret" not in done.output


def test_outside_a_pull_request_it_says_what_is_missing(file: Path) -> None:
    done = comment(file, "--repo", "acme/ranker", GITHUB_TOKEN="t", GITHUB_REF="refs/heads/main")
    assert done.exit_code == 2
    assert "this job does not run for a pull request" in done.output


@pytest.mark.parametrize("content", [None, "hello", "\udcff"])
def test_a_file_that_is_no_comment_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "x.md"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    done = comment(path)
    assert done.exit_code == 2
    assert "write it with profile gate … --comment FILE" in done.output
