"""The doors for CI: what `profile gate` writes besides its run folder, and `profile comment | schema | trend`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import JsonOption, check_json, door, open_console, say, write_json

if TYPE_CHECKING:
    from ...reports.forge import Forge
    from ...reports.gate import GateResult
    from .outputs import Outputs

JunitOption = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write the gates as tests in JUnit XML.")]
SummaryOption = Annotated[
    Path | None,
    typer.Option("--summary", metavar="FILE", envvar="GITHUB_STEP_SUMMARY", help="Append the verdict as Markdown.", show_default=False),
]
AnnotationsOption = Annotated[
    bool, typer.Option("--annotations/--no-annotations", envvar="GITHUB_ACTIONS", help="Print GitHub annotations. Default: in its jobs.")
]
CommentOption = Annotated[
    Path | None, typer.Option("--comment", metavar="FILE", help="Write a comment for `profile comment` to post to the pull request.")
]
CommentKeyOption = Annotated[
    str, typer.Option("--comment-key", metavar="KEY", help="Tells the comments of several gates in one pull request apart.")
]
TrendOption = Annotated[
    Path | None, typer.Option("--trend", metavar="PLACE", help="Append the run to this .jsonl file, or to this machine's in this folder.")
]


class Host(StrEnum):
    """Who keeps the pull request."""

    github = "github"
    gitlab = "gitlab"


class Document(StrEnum):
    """What has a schema."""

    comparison = "comparison"
    budget = "budget"
    trend = "trend"
    load = "load"
    sweep = "sweep"
    coldstart = "coldstart"
    batches = "batches"
    calibration = "calibration"
    cross_check = "cross_check"
    explanations = "explanations"


def wanted_outputs(
    *, junit: Path | None, summary: Path | None, annotations: bool, comment: Path | None, comment_key: str, trend: Path | None
) -> Outputs:
    """What to write, checked before anything is measured; raises InputError."""
    from ...reports.gate_page import marker  # noqa: PLC0415 - --help must not wait for it
    from .outputs import Outputs  # noqa: PLC0415

    marker(comment_key)
    outputs = Outputs(junit=junit, summary=summary, comment=comment, comment_key=comment_key, trend=trend, annotations=annotations)
    outputs.check()
    return outputs


def publish(result: GateResult, outputs: Outputs, *, budget: Path, json_path: str | None) -> None:
    """Everything a job asked for; the verdict was printed before."""
    from ...core.files import write_atomically  # noqa: PLC0415 - --help must not wait for it
    from ...reports import gate_page  # noqa: PLC0415
    from ...reports.annotations import workflow_commands  # noqa: PLC0415
    from ...reports.junit import junit  # noqa: PLC0415
    from ..trend import append, trend_line  # noqa: PLC0415
    from .outputs import append_text, inside_repository, size_of  # noqa: PLC0415

    if outputs.junit is not None:
        write_atomically(outputs.junit, junit(result))
    if outputs.summary is not None:
        page = gate_page.summary(result, limit=gate_page.SUMMARY_LIMIT - size_of(outputs.summary))
        append_text(outputs.summary, page)
    if outputs.comment is not None:
        write_atomically(outputs.comment, gate_page.comment(result, key=outputs.comment_key))
    if outputs.trend is not None:
        written = append(outputs.trend, trend_line(result.comparison, result.verdict))
        say(f"history: profile trend {written}", json_path=json_path)
    if outputs.annotations:
        place, text = inside_repository(budget, os.environ), budget.read_text(encoding="utf-8")
        for line in workflow_commands(result, budget_file=place, budget_text=text):
            say(line, json_path=json_path)


@door
def comment_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `profile gate --comment FILE` wrote.")],
    host: Annotated[Host | None, typer.Option("--host", help="Default: gitlab in its jobs, else github.")] = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="OWNER/NAME", envvar=["GITHUB_REPOSITORY", "CI_PROJECT_ID"], help="GitLab: or its number."),
    ] = None,
    number: Annotated[
        int | None, typer.Option("--pr", metavar="N", envvar="CI_MERGE_REQUEST_IID", min=1, help="Default: of the job's event.")
    ] = None,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Exit 0 with a note when the comment cannot be posted, as in pull requests of forks.")
    ] = False,
) -> None:
    """Post a gate's comment to a pull or merge request; the comment with the same key is updated in place."""
    from ...core.errors import InputError, RunFailed  # noqa: PLC0415
    from ...reports.forge import post  # noqa: PLC0415
    from ...reports.gate_page import marker_of  # noqa: PLC0415

    body = _read(file)
    marker = marker_of(body)
    if marker is None:
        raise InputError(str(file), "does not start with a gate's marker", fix="write it with profile gate … --comment FILE")
    where = host or (Host.gitlab if "CI_API_V4_URL" in os.environ else Host.github)
    try:
        posted = post(_forge(where, repo, number, os.environ), body, marker)
    except (RunFailed, InputError) as error:
        if not best_effort:
            raise
        say(f"note: no comment was posted: {error}")
        return
    say(f"comment {posted.id} {posted.what}")


def _read(file: Path) -> str:
    from ...core.errors import InputError  # noqa: PLC0415

    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(file), f"cannot be read ({error})", fix="write it with profile gate … --comment FILE") from None


def _forge(host: Host, repo: str | None, number: int | None, environment: Mapping[str, str]) -> Forge:
    """GitHub or GitLab with address and token from the environment; raises InputError for what is missing."""
    from ...core.errors import InputError  # noqa: PLC0415
    from ...reports.forge import Api, GitHub, GitLab, check_repository  # noqa: PLC0415
    from .outputs import pull_request  # noqa: PLC0415

    def needed(value: str | None, option: str, variables: str) -> str:
        if not value:
            raise InputError.mismatch("profile comment", expected=option, found="none", fix=f"set {variables}")
        return value

    if host is Host.gitlab:
        project = needed(repo, "--repo", "CI_PROJECT_ID, as GitLab's jobs do")
        iid = int(needed(str(number or ""), "--pr", "CI_MERGE_REQUEST_IID: the job must run for a merge request"))
        token = needed(environment.get("GITLAB_TOKEN"), "a token", "GITLAB_TOKEN to a project access token with scope api")
        url = needed(environment.get("CI_API_V4_URL"), "the API's address", "CI_API_V4_URL, such as https://gitlab.com/api/v4")
        return GitLab(api=Api(url=url.rstrip("/"), token=token, token_header="PRIVATE-TOKEN"), project=project, iid=iid)
    repository = check_repository(needed(repo, "--repo", "GITHUB_REPOSITORY, as GitHub's jobs do"))
    pull = int(needed(str(number or pull_request(environment) or ""), "--pr", "--pr: this job does not run for a pull request"))
    token = needed(environment.get("GITHUB_TOKEN"), "a token", "GITHUB_TOKEN: env: GITHUB_TOKEN: ${{ github.token }}")
    url = environment.get("GITHUB_API_URL") or "https://api.github.com"
    api = Api(url=url.rstrip("/"), token=token, token_header="Authorization", token_prefix="Bearer ")
    return GitHub(api=api, repository=repository, number=pull)


@door
def schema_command(
    document: Annotated[Document, typer.Argument(help="Which document.", show_choices=True)] = Document.comparison,
) -> None:
    """Print the JSON Schema of comparison.json (or of budget.toml, or of a line of a trend file)."""
    from .schema import schema  # noqa: PLC0415

    typer.echo(schema(document.value).decode())


@door
def trend_command(
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="A trend file or a folder of them.")],
    last: Annotated[int, typer.Option("--last", help="Runs to show per machine.", min=1)] = 20,
    json_path: JsonOption = None,
) -> None:
    """Show the history of gates per machine: a sparkline and a row per run. Nothing is decided by it."""
    from ..trend import read_trend  # noqa: PLC0415
    from ..trend_view import trend_view  # noqa: PLC0415

    check_json(json_path)
    found = read_trend(place)
    open_console(json_path).print(trend_view(found, last=last))
    write_json(found, json_path)
