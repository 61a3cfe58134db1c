"""Tables, paragraphs and quantities for the terminal."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 120


def table_text(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int = WIDTH,
    *,
    title: str = "",
    right: Sequence[str] = (),
    flexible: Sequence[str] = (),
) -> str:
    """A table as text, at most `width` columns wide.

    Columns named in `right` are aligned to the right. When the table is too wide, those in `flexible` lose the middle of their longest
    cells; other columns are folded.
    """
    natural = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    room = width - 3 * len(header) - 1 - sum(size for name, size in zip(header, natural, strict=True) if name not in flexible)
    limit = _limit([size for name, size in zip(header, natural, strict=True) if name in flexible], max(room, 0))
    grid = Table(title=title or None, title_justify="left")
    for name in header:
        grid.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        cells = (shortened(cell, limit) if name in flexible else cell for name, cell in zip(header, row, strict=True))
        grid.add_row(*(escape(cell) for cell in cells))
    console = Console(file=io.StringIO(), width=width, no_color=True)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").splitlines())


def _limit(sizes: Sequence[int], room: int) -> int:
    """The width at which columns of these sizes fit into `room` together: short ones leave their share to the others."""
    limit = max(sizes, default=0)
    while limit > 1 and sum(min(size, limit) for size in sizes) > room:
        limit -= 1
    return limit


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters: its middle is left out, for the ends of names tell most."""
    if len(text) <= width:
        return text
    head = max(width - 1, 0) // 3
    return f"{text[:head]}…{text[len(text) - (max(width, 1) - 1 - head) :]}"


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
    """`[rows, 6]`."""
    return "[" + ", ".join(str(dim) for dim in shape) + "]"


def size_text(size_bytes: float) -> str:
    """`45.3 KiB`, `1.20 MiB`."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= factor:
            return f"{digits_text(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} B"


def digits_text(value: float) -> str:
    """Three digits, or all of those before the point: `1.20`, `45.3`, `1018`."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
