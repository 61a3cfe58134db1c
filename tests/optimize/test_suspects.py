from __future__ import annotations

import random

import pytest
import torch
from liftgate.optimize.explain.suspects import suspects
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as users write it

from .refused_pair import Base


class Dropping(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x, 0.5)
        return self.score(F.dropout(x, 0.5, training=self.training))


class Drawing(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x + torch.randn_like(x))


class Gambling(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x) * random.random()


class Hidden(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x * x.data.gt(0))


class Counting(Base):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.score(x) / self.calls


class OneRow(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] == 1:
            return self.score(x) * 2
        return self.score(x)


class Squeezing(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(x).squeeze()
        return found


class Switching(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.linear.train()
        return self.score(x)


class Within(Base):
    """The line is in a method that forward calls, of a module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(Helped())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.inner(x)
        return found


class Helped(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.help(x)

    def help(self, x: torch.Tensor) -> torch.Tensor:
        return torch.squeeze(self.linear(x))

    def unused(self, x: torch.Tensor) -> torch.Tensor:
        return torch.rand_like(x)


@pytest.mark.parametrize(
    ("model", "name", "construct", "change"),
    [
        (Dropping, "Dropping.forward", "dropout that is always on", "say when: `F.dropout(x, 0.5, training=self.training)`"),
        (
            Drawing,
            "Drawing.forward",
            "random numbers in forward",
            "draw only while training (`if self.training:`): `torch.randn_like(x)`",
        ),
        (
            Gambling,
            "Gambling.forward",
            "random numbers in forward",
            "draw only while training (`if self.training:`), or pass what `random.random()` gives as an input",
        ),
        (Hidden, "Hidden.forward", "a tensor's .data", "use the tensor, or .detach(): `return self.score(x * x.gt(0))`"),
        (
            Counting,
            "Counting.forward",
            "state kept in self.calls from one call to the next",
            "keep it in a variable instead of self.calls",
        ),
        (OneRow, "OneRow.forward", "a Python branch on the number of rows", "write one expression that holds for any number of rows"),
        (Squeezing, "Squeezing.forward", "squeeze() without a dimension", "say which dimension: `self.linear(x).squeeze(-1)`"),
        (Switching, "Switching.forward", ".train() called in forward", "switch modes before forward is called, not in it"),
        (Within, "Helped.help", "squeeze() without a dimension", "say which dimension: `self.linear(x).squeeze(-1)`"),
    ],
)
def test_what_is_recorded_without_complaint_but_may_say_something_else(
    model: type[nn.Module], name: str, construct: str, change: str
) -> None:
    (found,) = suspects(model())
    assert (found.name, found.construct, found.change) == (name, construct, change)


def test_an_ordinary_model_has_no_suspects() -> None:
    assert suspects(nn.Sequential(nn.Embedding(3, 4), nn.Dropout(), nn.TransformerEncoderLayer(4, 2))) == ()
