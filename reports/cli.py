"""The door of the room: `liftgate report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import JsonOption, door, say, write_json


@door
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A folder with comparison.json and/or analysis.json.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to write; beside the results by default.")] = None,
    json_path: JsonOption = None,
) -> None:
    """Write the results in RUN_DIR as report.html, report.md and report.json."""
    from .document import verdict_line  # noqa: PLC0415 - not needed for --help
    from .report import HTML_FILE, JSON_FILE, MARKDOWN_FILE  # noqa: PLC0415
    from .report import report as write_report  # noqa: PLC0415

    written = write_report(run_dir, out=out)
    for judged in written.verdicts:
        say(verdict_line(judged), json_path=json_path)
    for name in (HTML_FILE, MARKDOWN_FILE, JSON_FILE):
        say(str((out or run_dir) / name), json_path=json_path)
    write_json(written, json_path)
