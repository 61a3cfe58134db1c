"""Where a CI job wants a gate's verdict, and where it runs: read once from options and environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...core.errors import InputError
from ...core.machine import this_machine
from ..run_folder import check_file
from ..trend import trend_file


class Outputs(msgspec.Struct, frozen=True, kw_only=True):
    """Files to write besides the run folder; None is not wanted. `summary` is appended to, as a job has one for all its steps."""

    junit: Path | None = None
    summary: Path | None = None
    comment: Path | None = None
    comment_key: str = "gate"
    trend: Path | None = None
    annotations: bool = False

    def check(self) -> None:
        """Raise InputError for what cannot be written, before anything is measured."""
        for file in (self.junit, self.summary, self.comment):
            if file is not None:
                check_file(file)
        if self.trend is not None:
            check_file(trend_file(self.trend, this_machine()))


def append_text(path: Path, text: str) -> None:
    """To the end of a file; raises InputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise InputError(str(path), f"cannot be written ({error.strerror or error})", fix="choose another path, or make room") from None


def size_of(path: Path) -> int:
    """Bytes already there."""
    return path.stat().st_size if path.exists() else 0


def inside_repository(path: Path, environment: Mapping[str, str]) -> str | None:
    """`path` as GitHub's annotations name it, None when it lies outside the checkout."""
    root = Path(environment.get("GITHUB_WORKSPACE") or Path.cwd()).resolve()
    whole = path.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else None


class _PullRequest(msgspec.Struct, frozen=True):
    number: int


class _Event(msgspec.Struct, frozen=True):
    """The part of GitHub's event file that names a pull request."""

    pull_request: _PullRequest | None = None
    number: int | None = None


def pull_request(environment: Mapping[str, str]) -> int | None:
    """The pull request this job runs for: from the event, else from the ref `refs/pull/7/merge`."""
    event = environment.get("GITHUB_EVENT_PATH")
    if event and Path(event).is_file():
        try:
            found = msgspec.json.decode(Path(event).read_bytes(), type=_Event)
        except msgspec.DecodeError:
            found = _Event()
        if found.pull_request is not None:
            return found.pull_request.number
    match = re.fullmatch(r"refs/pull/(\d+)/\w+", environment.get("GITHUB_REF", ""))
    return int(match[1]) if match else None
