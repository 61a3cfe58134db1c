"""A gate's verdict as workflow commands, which GitHub shows as annotations of the job and of the budget's lines."""

from __future__ import annotations

import re
from typing import Literal

from ..core.verdict import Finding, Outcome
from .document import headline, ordered
from .gate import GateResult

# GitHub keeps ten annotations per kind and step, and drops the others in silence.
MOST = 10
Kind = Literal["error", "warning", "notice"]
_KINDS: tuple[Kind, ...] = ("error", "warning", "notice")
_GATE = re.compile(r"^\s*\[\[\s*gate\s*\]\]")


def workflow_commands(result: GateResult, *, budget_file: str | None = None, budget_text: str = "") -> tuple[str, ...]:
    """Commands to print, one a line: a notice, warning or error with the verdict, then one per gate that did not pass, worst first.

    `budget_file` is the budget's path inside the repository and `budget_text` what it holds: annotations then stand at the gate's table.
    """
    findings = result.verdict.findings
    lines = [number for number, line in enumerate(budget_text.splitlines(), start=1) if _GATE.match(line)]
    places = dict(zip(map(id, findings), lines, strict=True)) if budget_file and len(lines) == len(findings) else {}
    outcome = result.verdict.outcome
    overall: Kind = "error" if result.stops else "notice" if outcome is Outcome.PASS else "warning"
    words = f"{result.judged.subject} {result.judged.against}: {headline(result.judged)}"
    found: dict[Kind, list[str]] = {kind: [] for kind in _KINDS}
    found[overall].append(_command(overall, f"liftgate {outcome}", words))
    for finding in ordered(findings):
        if finding.outcome is not Outcome.PASS:
            kind = _kind(finding, result)
            title = f"{finding.outcome} {finding.gate}"
            found[kind].append(_command(kind, title, finding.reason, budget_file, places.get(id(finding))))
    return tuple(line for kind in _KINDS for line in _at_most_ten(kind, found[kind]))


def _kind(finding: Finding, result: GateResult) -> Kind:
    if finding.level == "warn":
        return "warning" if finding.outcome is Outcome.FAIL else "notice"
    return "warning" if finding.outcome is Outcome.UNDECIDED and result.undecided == "warn" else "error"


def _at_most_ten(kind: Kind, commands: list[str]) -> list[str]:
    if len(commands) <= MOST:
        return commands
    left = len(commands) - MOST + 1
    return [*commands[: MOST - 1], _command(kind, "liftgate", f"{left} more like these: see the job's summary")]


def _command(kind: Kind, title: str, message: str, file: str | None = None, line: int | None = None) -> str:
    at = f"file={_property(file)},line={line}," if file is not None and line is not None else ""
    return f"::{kind} {at}title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
