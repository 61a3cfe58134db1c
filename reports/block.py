"""What a report is laid out from: sections of blocks, which every rendering shows in the same order."""

from __future__ import annotations

from typing import Literal

import msgspec
from markupsafe import Markup

from .result import Judged
from .table import Table


class Text(msgspec.Struct, frozen=True, kw_only=True, tag="text"):
    """A paragraph; a `banner` stands out because a reader who misses it would misread the rest."""

    text: str
    tone: Literal["", "note", "banner", "alarm"] = ""


class Heading(msgspec.Struct, frozen=True, kw_only=True, tag="heading"):
    """A heading inside a section, with a small label such as `emulated`."""

    text: str
    label: str = ""


class Bullets(msgspec.Struct, frozen=True, kw_only=True, tag="bullets"):
    """Sentences in a list."""

    items: tuple[str, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True, tag="facts"):
    """Labels and values."""

    pairs: tuple[tuple[str, str], ...]


class Command(msgspec.Struct, frozen=True, kw_only=True, tag="command"):
    """Something to type."""

    text: str


class Figure(msgspec.Struct, frozen=True, kw_only=True, tag="figure"):
    """A chart with the sentence that says how to read it; text renderings leave it out, the numbers are in a table."""

    svg: Markup
    caption: str


class Judgement(msgspec.Struct, frozen=True, kw_only=True, tag="judgement"):
    """A verdict with one sentence per gate; `folded` hides the gates that passed."""

    judged: Judged
    folded: bool = False


class Fold(msgspec.Struct, frozen=True, kw_only=True, tag="fold"):
    """Blocks that most readers skip."""

    title: str
    blocks: tuple[Block, ...]


Block = Text | Heading | Bullets | Facts | Command | Figure | Judgement | Fold | Table


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A titled part of the report; `name` is its anchor."""

    name: str
    title: str
    blocks: tuple[Block, ...]
