"""A report as Markdown for a pull-request comment: the same sections in the same order, without the charts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..core.verdict import Outcome
from . import document
from .block import Block, Bullets, Command, Facts, Figure, Fold, Heading, Judgement, Section, Text
from .result import Judged, Report
from .table import Cell, Table

MARKER = "<!-- liftgate-report -->"
COMMENT_LIMIT = 60_000  # characters; GitHub refuses a comment above 65,536
_SIGNS = {Outcome.PASS: "✅", Outcome.FAIL: "❌", Outcome.UNDECIDED: "🟡", Outcome.INVALID: "⛔"}
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
# What would start markup or a table column; underscores inside words and lone brackets are harmless and common.
_SPECIAL = re.compile(r"[\\`*|]|(?<!\w)_|_(?!\w)|\](?=\()|^[#>+-](?=\s)")


def markdown(report: Report, *, limit: int = COMMENT_LIMIT) -> str:
    """At most `limit` characters, starting with a hidden marker by which a bot finds its own comment.

    A report that is too long first loses its folded parts, then its end, and says so.
    """
    sections = document.sections(report)
    whole = _render(report, sections, folds=True)
    if len(whole) <= limit:
        return whole
    note = "\n_Shortened: the whole report is in `report.html`._\n"
    brief = _render(report, sections, folds=False)
    if len(brief) + len(note) > limit:
        brief = brief[: limit - len(note)].rpartition("\n")[0] + "\n"
        if brief.count("```") % 2:
            brief += "```\n"
            brief = brief[-(limit - len(note)) :] if len(brief) + len(note) > limit else brief
    return brief + note


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line; a name such as `@team` calls nobody (a space of no width follows the @)."""
    flat = _MENTION.sub("@\u200b", " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;"))
    return _SPECIAL.sub(lambda match: "\\" + match[0], flat)


def _render(report: Report, sections: tuple[Section, ...], *, folds: bool) -> str:
    lines = [MARKER, f"# {escape(report.title)}", ""]
    for section in sections:
        if all(isinstance(block, Heading | Figure) for block in section.blocks):
            continue  # nothing but charts: their numbers stand in the tables
        lines += [f"## {section.title}", ""]
        lines += [line for block in section.blocks for line in block_lines(block, folds=folds)]
    return "\n".join(lines).rstrip() + "\n"


def block_lines(block: Block, *, folds: bool) -> Iterator[str]:
    """Lines of one block, a blank one at the end."""
    match block:
        case Text(text=text, tone=tone):
            yield from ({"banner": f"> **{escape(text)}**", "alarm": f"> ⛔ **{escape(text)}**"}.get(tone, escape(text)), "")
        case Heading(text=text, label=label):
            yield from (f"### {escape(text)}" + (f" ({escape(label)})" if label else ""), "")
        case Bullets(items=items):
            yield from (*(f"- {escape(item)}" for item in items), "")
        case Facts(pairs=pairs):
            yield from (*(f"- **{escape(label)}:** {escape(value)}" for label, value in pairs), "")
        case Command(text=text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            yield from (f"{fence}console", text, fence, "")
        case Judgement(judged=judged):
            yield from _judgement(judged)
        case Fold(title=title, blocks=blocks):
            if folds:
                yield from ("<details>", f"<summary>{escape(title)}</summary>", "")
                for inner in blocks:
                    yield from block_lines(inner, folds=folds)
                yield from ("</details>", "")
        case Table():
            yield from _table(block)
        case Figure():
            return  # its numbers stand in a table


def _judgement(judged: Judged) -> Iterator[str]:
    outcome = judged.outcome
    badge = f"{_SIGNS[outcome]} {outcome.value}: " if outcome is not None else ""
    yield from (f"### {badge}{escape(judged.subject)} ({escape(judged.against)})", "", escape(document.headline(judged)), "")
    if judged.verdict is not None and judged.verdict.findings:
        for finding in document.ordered(judged.verdict.findings):
            level = " (warning)" if finding.level == "warn" else ""
            yield f"- {_SIGNS[finding.outcome]} **{finding.outcome.value}**{level} {escape(document.sentence(finding))}"
        yield ""


def _table(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(escape(c.name) for c in table.columns) + " |"
    yield "|" + "|".join("---:" if c.numeric else ":---" for c in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"
    yield ""


def _cell(cell: Cell) -> str:
    detail = cell.detail if cell.detail.startswith(("[", "(")) or not cell.detail else f"({cell.detail})"
    return escape(f"{cell.text} {detail}")
