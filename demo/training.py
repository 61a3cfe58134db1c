"""Training the base and fine-tuning its successor: deterministic by seed, on few cores, in about a minute each."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import torch
from torch import nn

from ..core.files import new_file
from ..core.progress import Progress, silent
from .dataset import LIKED
from .ranker import Ranker
from .requests import HISTORY, Popularity, histories
from .scale import TrainingSettings


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """Ratings to learn from: `user` [n], `history` [n, HISTORY] before each rating, `item` [n], `liked` [n].

    `rated` holds every (user, item) of the training part as one sorted number each, so that what a user rated is not drawn as unrated.
    """

    user: np.ndarray
    history: np.ndarray
    item: np.ndarray
    liked: np.ndarray
    rated: np.ndarray


def examples_of(train: pd.DataFrame, subset: pd.DataFrame | None = None) -> Examples:
    """Every rating of `subset` (or all of `train`) with the history it had in `train`."""
    chosen = train if subset is None else subset
    history = histories(train)
    if subset is not None:
        place = {key: row for row, key in enumerate(zip(train["user"].tolist(), train["item"].tolist(), strict=True))}
        history = history[[place[key] for key in zip(subset["user"].tolist(), subset["item"].tolist(), strict=True)]]
    liked = (chosen["rating"].to_numpy() >= LIKED).astype(np.float32)
    rated = np.unique(_pairs(train["user"].to_numpy(), train["item"].to_numpy()))
    return Examples(user=chosen["user"].to_numpy(), history=history, item=chosen["item"].to_numpy(), liked=liked, rated=rated)


def _pairs(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """One int64 per (user, item)."""
    return (user.astype(np.int64) << 32) | item.astype(np.int64)


def negatives_of(examples: Examples, rows: np.ndarray, popularity: Popularity, rng: np.random.Generator, count: int) -> np.ndarray:
    """int64 `[rows, count]`: items drawn by popularity that the row's user did not rate in the training part.

    Masking later ratings as well would tell the model what users will rate, so an item rated later may be drawn. A user who rated nearly
    everything keeps what is left of the draw after 20 attempts.
    """
    drawn = popularity.draw(rng, (len(rows), count))
    user = np.repeat(examples.user[rows, None], count, axis=1)
    for _ in range(20):
        pairs = _pairs(user, drawn)
        place = np.minimum(np.searchsorted(examples.rated, pairs), len(examples.rated) - 1)
        known = examples.rated[place] == pairs
        if not known.any():
            break
        drawn[known] = popularity.draw(rng, int(known.sum()))
    return drawn


def train(
    model: Ranker,
    examples: Examples,
    popularity: Popularity,
    settings: TrainingSettings,
    *,
    seed: int,
    what: str = "training",
    progress: Progress = silent,
) -> float:
    """Train `model` in place and return the last epoch's mean loss.

    Binary cross-entropy: 1 for a liked item, 0 for a rated but not liked one and for `negatives` unrated items drawn by popularity. Calls
    `progress(what, batches done, batches)`.
    """
    rng = np.random.default_rng(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    loss_of = nn.BCEWithLogitsLoss()
    count = len(examples.user)
    batches = -(-count // settings.batch)
    total = settings.epochs * batches
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=settings.learning_rate, total_steps=total, pct_start=0.2)
    model.train()
    mean = float("nan")
    for epoch in range(settings.epochs):
        order = rng.permutation(count)
        losses = []
        for batch in range(batches):
            rows = order[batch * settings.batch : (batch + 1) * settings.batch]
            feeds, liked = _batch(examples, rows, negatives_of(examples, rows, popularity, rng, settings.negatives))
            optimiser.zero_grad()
            loss = loss_of(model.lists(*feeds), liked)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            progress(what, epoch * batches + batch + 1, total)
        mean = float(np.mean(losses))
    model.eval()
    return mean


def _batch(examples: Examples, rows: np.ndarray, negatives: np.ndarray) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Lists of a rated item and its negatives: `user` [batch], `history` [batch, HISTORY], `items` and `liked` [batch, 1 + negatives]."""
    items = np.concatenate([examples.item[rows, None], negatives], axis=1)
    liked = np.zeros(items.shape, dtype=np.float32)
    liked[:, 0] = examples.liked[rows]
    return tuple(torch.from_numpy(a) for a in (examples.user[rows], examples.history[rows], items)), torch.from_numpy(liked)


def save(model: Ranker, path: Path) -> None:
    """Write a torch.export archive with dynamic rows, all or nothing."""
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    example = (torch.ones(3, dtype=torch.int64), torch.ones(3, HISTORY, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    program = torch.export.export(model.eval(), example, dynamic_shapes={"user": {0: rows}, "history": {0: rows}, "item": {0: rows}})
    # torch complains about a name that does not end in .pt2, so it is given an open file.
    with new_file(path) as temporary, temporary.open("wb") as file:
        torch.export.save(program, file)
