"""Tables, paragraphs and quantities for the terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 120


def drawn(table: Table, width: int = WIDTH) -> str:
    """A table as text, at most `width` columns wide."""
    console = Console(file=io.StringIO(), width=width, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def wrapped(text: str, width: int = WIDTH, *, indent: str = "") -> str:
    """A paragraph; lines after the first are indented by `indent` and two columns more."""
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False
    )


def wrapped_items(label: str, items: Sequence[str], width: int = WIDTH) -> str:
    """`label: a, b, c` as a paragraph that breaks between items only."""
    unbroken = [item.replace(" ", "\N{NO-BREAK SPACE}") for item in items]
    return wrapped(f"{label}: {', '.join(unbroken)}", width).replace("\N{NO-BREAK SPACE}", " ")


def shape_text(shape: Sequence[int | str]) -> str:
    """`[rows, 6]`, safe in a rich table."""
    return escape("[" + ", ".join(str(dim) for dim in shape) + "]")


def size_text(size_bytes: float) -> str:
    """`45.3 KiB`, `1.20 MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{digits_text(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} B"


def digits_text(value: float) -> str:
    """Three digits, or all of those before the point: `1.20`, `45.3`, `1018`."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
