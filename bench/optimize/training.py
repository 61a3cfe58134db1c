"""Training a case on MovieLens: deterministic by seed, one to two minutes on one core."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ...demo.requests import Popularity
from ...demo.training import Examples, examples_of, negatives_of
from .case import Case
from .features import Ints, World, candidate_columns, oldest_first, request_columns

Tensors = dict[str, torch.Tensor]


class _Batches:
    """Batches of training ratings with the history each had, as a case's inputs."""

    def __init__(self, case: Case, world: World, seed: int) -> None:
        self.case, self.world = case, world
        self.examples: Examples = examples_of(world.split.train)
        self.timestamp = world.split.train["timestamp"].to_numpy()
        self.popularity = Popularity(world.split.train, world.items)
        self.random = np.random.default_rng(seed)
        everything = np.arange(len(self.examples.user))
        # A softmax learns which film was liked; the others also learn which was not.
        self.rows = everything[self.examples.liked > 0] if case.training.loss == "softmax" else everything

    def order(self) -> list[Ints]:
        shuffled = self.random.permutation(self.rows)
        # A last batch of a few rows would upset batch normalization.
        return np.array_split(shuffled, -(-len(shuffled) // self.case.training.batch))

    def requests(self, rows: Ints, copies: int = 1) -> Tensors:
        """Request inputs of these ratings, each `copies` times."""
        history = self.examples.history[rows]
        history = history if self.case.padding == "front" else oldest_first(history)
        columns = request_columns(self.world, self.examples.user[rows], self.timestamp[rows], history)
        return {name: torch.from_numpy(np.repeat(columns[name], copies, axis=0)) for name in self.case.request_inputs}

    def films(self, item: Ints) -> Tensors:
        columns = candidate_columns(self.world, item)
        return {name: torch.from_numpy(columns[name]) for name in self.case.candidate_inputs}

    def rated(self, rows: Ints, item: Ints) -> torch.Tensor:
        """Whether the user of each of `rows` rated each of `item` in training: bool [rows, items]."""
        pairs = (self.examples.user[rows].astype(np.int64)[:, None] << 32) | item[None, :]
        place = np.minimum(np.searchsorted(self.examples.rated, pairs), len(self.examples.rated) - 1)
        return torch.from_numpy(self.examples.rated[place] == pairs)


def train(case: Case, world: World, *, seed: int = 0) -> tuple[torch.nn.Module, float]:
    """A trained module in evaluation mode, and the seconds it took."""
    torch.manual_seed(seed)
    module = case.build(world.users, world.items)
    batches, settings = _Batches(case, world, seed), case.training
    optimiser = torch.optim.AdamW(module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    total = settings.epochs * len(batches.order())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=settings.learning_rate, total_steps=total, pct_start=0.2)
    loss_of = _softmax_loss if settings.loss == "softmax" else _pointwise_loss
    module.train()
    start = time.monotonic()
    for epoch in range(settings.epochs):
        losses = []
        for rows in batches.order():
            optimiser.zero_grad()
            loss = loss_of(module, batches, rows)
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"{case.name}: epoch {epoch + 1}/{settings.epochs}, loss {np.mean(losses):.4f}, {time.monotonic() - start:.0f} s", flush=True)
    return module.eval(), time.monotonic() - start


def _pointwise_loss(module: torch.nn.Module, batches: _Batches, rows: Ints) -> torch.Tensor:
    settings, examples = batches.case.training, batches.examples
    drawn = negatives_of(examples, rows, batches.popularity, batches.random, settings.negatives)
    items = np.concatenate([examples.item[rows, None], drawn], axis=1)
    liked = np.zeros(items.shape, dtype=np.float32)
    liked[:, 0] = examples.liked[rows]
    scores = module(**batches.requests(rows, copies=items.shape[1]), **batches.films(items.reshape(-1)))
    target = torch.from_numpy(liked.reshape(-1))
    if settings.loss == "logit":
        return functional.binary_cross_entropy_with_logits(scores, target)
    return functional.binary_cross_entropy(scores, target)


def _softmax_loss(module: Any, batches: _Batches, rows: Ints) -> torch.Tensor:  # noqa: ANN401 - a module with `users` and `films`
    settings, examples = batches.case.training, batches.examples
    items = np.concatenate([examples.item[rows], batches.popularity.draw(batches.random, settings.negatives)])
    users, films = module.users(**batches.requests(rows)), module.films(**batches.films(items))
    products = users @ films.T / settings.temperature
    # What the user rated is no negative, except as its own row's answer.
    known = batches.rated(rows, items)
    known[torch.arange(len(rows)), torch.arange(len(rows))] = False
    return functional.cross_entropy(products.masked_fill(known, -1e9), torch.arange(len(rows)))
