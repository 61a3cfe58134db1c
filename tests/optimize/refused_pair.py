"""A model that torch.export refuses beside the same model with the suggested change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import torch
from torch import nn

Args = tuple[torch.Tensor, ...]


class Base(nn.Module):
    """The weights that every model here has."""

    if TYPE_CHECKING:
        items: Callable[[torch.Tensor], torch.Tensor]
        gru: Callable[..., tuple[Any, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 1)
        self.items = nn.Embedding(10, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def score(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(x)
        return found.squeeze(-1)


class Pair(msgspec.Struct, frozen=True):
    """What the error must say of `broken`; `repaired` is `broken` with that change."""

    broken: type[nn.Module]
    repaired: type[nn.Module]
    draw: Callable[[int, int], Args]
    code: str
    construct: str
    change: str
    name: str = ""
    sound: bool = False
    runs_in_eager: bool = True

    @property
    def where(self) -> str:
        return self.name or f"{self.broken.__name__}.forward"


def features(rows: int, seed: int) -> Args:
    """A float32 matrix [rows, 4]."""
    return (torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed)),)


def lengths(rows: int, seed: int) -> Args:
    """Padded histories of 1 to 6 items, int64 [rows, 6], and how long each is."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.randint(1, 7, (rows,), generator=generator)
    history = torch.randint(1, 10, (rows, 6), generator=generator)
    return history * (torch.arange(6)[None, :] < count[:, None]), count
