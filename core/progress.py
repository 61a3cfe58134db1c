"""How long-running functions tell a caller where they are, without knowing whether anybody watches."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done and how far it is: `progress("measuring m5.large", 3, 20)`."""

    def __call__(self, what: str, done: int, total: int) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """A Progress that nobody watches."""
