"""A gate's verdict as Markdown: the step summary of a job, and a comment that is updated in place."""

from __future__ import annotations

import re

from ..core.errors import InputError
from .block import Fold, Judgement
from .gate import GateResult
from .markdown import block_lines
from .result import Judged

# Bytes. GitHub refuses comments above 65,536 characters and summaries above 1 MiB per step; GitLab notes above 1,000,000 characters.
COMMENT_LIMIT = 65_536
SUMMARY_LIMIT = 1_048_576
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_MARKER = re.compile(r"<!-- liftgate-gate (?P<key>\S+) -->")
_WITHOUT_FOLDS = (
    "_Shortened to fit: segments, machine and command are left out here; the whole result is in `comparison.json` of the run folder._"
)


def marker(key: str) -> str:
    """The hidden first line by which a comment is found again; several gates of one pull request have a key each. Raises InputError."""
    if not _KEY.fullmatch(key) or "--" in key:
        expected = "letters, digits and . _ / - (not two in a row), at most 100"
        raise InputError.mismatch("--comment-key", expected=expected, found=repr(key))
    return f"<!-- liftgate-gate {key} -->"


def marker_of(body: str) -> str | None:
    """The marker that a comment starts with; None when it is not one of ours."""
    found = _MARKER.match(body)
    return found[0] if found else None


def summary(result: GateResult, *, limit: int = SUMMARY_LIMIT) -> str:
    """The page for a job's summary, at most `limit` bytes; empty when there is no room even for the verdict."""
    return _fit(result, "", limit)


def comment(result: GateResult, *, key: str = "gate", limit: int = COMMENT_LIMIT) -> str:
    """The page for a pull request, at most `limit` bytes, starting with the marker of `key`."""
    return _fit(result, marker(key) + "\n", limit)


def _fit(result: GateResult, head: str, limit: int) -> str:
    """Everything; else without the folded parts; else as many gates as fit, worst first: whatever is left out is said."""
    blocks = result.blocks()
    whole = _page(head, [line for block in blocks for line in block_lines(block, folds=True)])
    if _size(whole) <= limit:
        return whole
    open_blocks = [block for block in blocks if not isinstance(block, Fold)]
    brief = _page(head, [*(line for block in open_blocks for line in block_lines(block, folds=False)), _WITHOUT_FOLDS])
    return brief if _size(brief) <= limit else _gates_that_fit(result.judged, head, limit)


def _gates_that_fit(judged: Judged, head: str, limit: int) -> str:
    lines = list(block_lines(Judgement(judged=judged), folds=False))
    opening, gates = lines[:4], [line for line in lines[4:] if line]
    kept: list[str] = []
    for number, gate in enumerate(gates):
        left = len(gates) - number
        if _size(_page(head, [*opening, *kept, gate, "", _rest(left)])) > limit:
            break
        kept.append(gate)
    page = _page(head, [*opening, *kept, "", _rest(len(gates) - len(kept))])
    return page if _size(page) <= limit else ""


def _rest(gates: int) -> str:
    what = f"{gates} more gates and the tables are" if gates > 1 else "one more gate and the tables are" if gates else "the tables are"
    return f"_Shortened to fit: {what} left out here; the whole result is in `comparison.json` of the run folder._"


def _page(head: str, lines: list[str]) -> str:
    return head + "\n".join(lines).rstrip() + "\n"


def _size(text: str) -> int:
    return len(text.encode())
