"""`report`: read a folder of results, write them for people (HTML), for pull requests (Markdown) and for programs (JSON)."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from ..core.errors import InputError
from ..core.files import write_atomically
from ..experiment.result import Analysis
from ..profile.result import Comparison
from ..profile.run_folder import EXPLANATION_FILE
from ..profile.trace.explanation import Explanations
from .curves import read_curves
from .html import html
from .markdown import markdown
from .result import Report, Story

COMPARISON_FILE, ANALYSIS_FILE, STORY_FILE, SAMPLES_FILE = "comparison.json", "analysis.json", "story.json", "samples.parquet"
HTML_FILE, MARKDOWN_FILE, JSON_FILE = "report.html", "report.md", "report.json"
_HOW_TO_MAKE_ONE = "make one with `profile compare … --out DIR` or `liftgate experiment analyse … --out DIR`"

T = TypeVar("T", Comparison, Analysis, Story, Explanations)


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """What every result says about itself; other keys are not looked at yet."""

    schema_version: int = 1
    kind: str | None = None


def report(run_dir: Path | str, *, out: Path | str | None = None) -> Report:
    """Read the results in `run_dir`, write `report.html`, `report.md` and `report.json` to `out` (default: beside them).

    Needs `comparison.json` or `analysis.json`; `story.json`, `samples.parquet` and `explanation.json` are used when they are
    there. Raises InputError when none of the first two is there, or one is damaged or of another version; nothing is written then.
    """
    read = read_run(Path(run_dir))
    # All three exist before the first is written, so a failure leaves the folder as it was.
    contents: dict[str, str | bytes] = {HTML_FILE: html(read), MARKDOWN_FILE: markdown(read), JSON_FILE: to_json(read)}
    folder = Path(run_dir if out is None else out)
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise InputError(str(folder), f"cannot be written to ({error.strerror})", fix="choose another folder with --out") from None
    return read


def read_run(folder: Path) -> Report:
    """The results in a folder as one value; raises InputError."""
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise InputError.mismatch(str(folder), expected="a folder of results", found=found, fix=_HOW_TO_MAKE_ONE)
    comparison = _read(folder / COMPARISON_FILE, Comparison)
    analysis = _read(folder / ANALYSIS_FILE, Analysis)
    if comparison is None and analysis is None:
        raise InputError.mismatch(
            str(folder), expected=f"{COMPARISON_FILE} or {ANALYSIS_FILE}", found="neither of them", fix=_HOW_TO_MAKE_ONE
        )
    samples = folder / SAMPLES_FILE
    instances = tuple(i.name for i in comparison.instances) if comparison is not None else ()
    curves = read_curves(samples, instances) if comparison is not None and samples.is_file() else ()
    return Report(
        comparison=comparison,
        analysis=analysis,
        story=_read(folder / STORY_FILE, Story),
        curves=curves,
        explanations=_read(folder / EXPLANATION_FILE, Explanations) if comparison is not None else None,
    )


def _read(path: Path, kind: type[T]) -> T | None:
    """A result file as its type, None when there is none."""
    if not path.exists():
        return None
    fix = "write it again with the command that made it"
    try:
        body = path.read_bytes()
        envelope = msgspec.json.decode(body, type=_Envelope)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is damaged or not JSON ({error})", fix=fix) from None
    if envelope.schema_version != 1:
        found = f"version {envelope.schema_version}"
        raise InputError.mismatch(str(path), expected="schema_version 1", found=found, fix="use the liftgate that wrote it")
    expected = kind.__name__.lower()
    if envelope.kind is not None and envelope.kind != expected:
        raise InputError.mismatch(str(path), expected=f"kind '{expected}'", found=f"'{envelope.kind}'", fix=fix)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"is not a {expected} of version 1 ({error})", fix=fix) from None


def to_json(value: Report) -> bytes:
    """`report.json`: the report as it reads back with `from_json`."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def from_json(body: bytes, *, where: str = JSON_FILE) -> Report:
    """A report from its JSON; raises InputError."""
    try:
        return msgspec.json.decode(body, type=Report)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(where, f"is not a report of version 1 ({error})", fix="write it again with `liftgate report`") from None
