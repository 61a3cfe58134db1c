"""One case: a public ranker, what it takes once per request and per candidate, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    import torch

Padding = Literal["front", "back"]


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a case is trained; `batch` counts ratings.

    `probability` and `logit`: binary cross-entropy on rated films (1 if liked) and on `negatives` drawn ones for each (0), for a model
    that gives one or the other. `softmax`: each liked film against the batch's others and `negatives` drawn ones, products divided by
    `temperature`; the user's side is computed once per rating.
    """

    loss: Literal["probability", "logit", "softmax"]
    epochs: int
    learning_rate: float = 2e-3
    batch: int = 256
    negatives: int = 4
    temperature: float = 1.0
    weight_decay: float = 1e-6


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A ranker whose forward takes `request_inputs` and then `candidate_inputs`, each with one row per candidate, and gives `[rows]`."""

    name: str
    package: str
    request_inputs: tuple[str, ...]
    candidate_inputs: tuple[str, ...]
    build: Callable[[int, int], torch.nn.Module]
    training: Training
    padding: Padding = "front"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (*self.request_inputs, *self.candidate_inputs)
