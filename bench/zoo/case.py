"""One recommender of a third-party package: how to build it, and how to draw rows for it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .draw import Draw
from .weights import settle

# The positional arguments of a module's forward: tensors, or dicts and tuples of them; the leading dimension of every tensor is the rows.
Args = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model of the catalogue.

    `kind` says what it is, and how it is driven where that is not its plain forward. `scale` widens or narrows its weights.
    """

    name: str
    package: str
    kind: str
    build: Callable[[], torch.nn.Module]
    inputs: Callable[[Draw], Args]
    scale: float = 1.0

    @property
    def key(self) -> str:
        return f"{self.package}/{self.name}"

    def module(self) -> torch.nn.Module:
        """The module in eval mode, its weights drawn from a seed that follows from the name."""
        seed = zlib.crc32(self.key.encode())
        torch.manual_seed(seed)
        return settle(self.build(), seed, self.scale)

    def make(self) -> tuple[torch.nn.Module, Args]:
        """The module and seven example rows."""
        return self.module(), self.inputs(Draw(rows=7, seed=0))
