"""A table as a value, so that HTML and Markdown show the same one."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..core.estimate import Estimate
from ..core.verdict import Outcome
from .numbers import UNKNOWN, Format, bounds, known

Tone = Literal["", "good", "bad", "unknown", "muted", "pass", "fail", "undecided", "invalid"]


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader sees: `text`, and under it `detail` (an interval, a note)."""

    text: str
    detail: str = ""
    tone: Tone = ""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A heading; numbers are set flush right with figures of equal width."""

    name: str
    numeric: bool = True


class Table(msgspec.Struct, frozen=True, kw_only=True, tag="table"):
    """Rows of cells, as many in each as there are columns."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise AssertionError(f"table '{self.caption}': {len(row)} cells under {len(self.columns)} columns")


def columns(*names: str, text: int = 1) -> tuple[Column, ...]:
    """Columns of which the first `text` hold words."""
    return tuple(Column(name=name, numeric=i >= text) for i, name in enumerate(names))


def plain(text: str, detail: str = "", tone: Tone = "") -> Cell:
    """A cell of words or a finished number; `unknown` looks like what it is."""
    return Cell(text=text, detail=detail, tone="unknown" if text == UNKNOWN else tone)


def estimate_cell(estimate: Estimate | None, form: Format, tone: Tone = "") -> Cell:
    """A value over its interval."""
    if estimate is None or estimate.value is None:
        return Cell(text=UNKNOWN, tone="unknown")
    return Cell(text=known(estimate.value, form), detail=bounds(estimate, form), tone=tone)


def outcome_cell(outcome: Outcome | None) -> Cell:
    """The outcome as a word with its colour; without a budget nothing was judged."""
    return Cell(text="not judged", tone="muted") if outcome is None else Cell(text=outcome.value, tone=outcome_tone(outcome))


def outcome_tone(outcome: Outcome) -> Tone:
    """The colour of an outcome."""
    tones: dict[Outcome, Tone] = {
        Outcome.PASS: "pass",
        Outcome.FAIL: "fail",
        Outcome.UNDECIDED: "undecided",
        Outcome.INVALID: "invalid",
    }
    return tones[outcome]


def side_of(estimate: Estimate, reference: float, better: Literal["higher", "lower"]) -> Tone:
    """`good` or `bad` when the whole interval lies on one side of `reference`, else nothing."""
    if estimate.low is not None and estimate.low > reference:
        return "good" if better == "higher" else "bad"
    if estimate.high is not None and estimate.high < reference:
        return "bad" if better == "higher" else "good"
    return ""
