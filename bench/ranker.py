"""The model and requests every benchmark here runs: a history ranker of serving size with random weights."""

from __future__ import annotations

import numpy as np
import torch

from ..core.artifact import ModelArtifact
from ..core.requests import Requests
from ..core.store import Store
from ..optimize.export import export

USERS, ITEMS, HISTORY, CANDIDATES = 1_000, 5_000, 50, 100


class Ranker(torch.nn.Module):
    """Target attention over the history and an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.users = torch.nn.Embedding(USERS, 32)
        self.items = torch.nn.Embedding(ITEMS, 32)
        self.attention = torch.nn.Sequential(torch.nn.Linear(96, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
        self.top = torch.nn.Sequential(torch.nn.Linear(96, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def forward(self, user: torch.Tensor, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        seen, target = self.items(history), self.items(item)
        beside = target.unsqueeze(1).expand_as(seen)
        weight = torch.softmax(self.attention(torch.cat([seen, beside, seen * beside], dim=-1)), dim=1)
        score: torch.Tensor = self.top(torch.cat([self.users(user), target, (weight * seen).sum(dim=1)], dim=-1))
        return score.squeeze(-1)


def make_requests(count: int) -> Requests:
    """Unlabelled requests with ids drawn uniformly, seed 0."""
    rng = np.random.default_rng(0)
    return Requests.of(
        {
            "request_id": [f"r{i}" for i in range(count)],
            "user_id": [str(i) for i in range(count)],
            "user": rng.integers(0, USERS, count).tolist(),
            "history": rng.integers(0, ITEMS, (count, HISTORY)).tolist(),
            "item": rng.integers(0, ITEMS, (count, CANDIDATES)).tolist(),
        }
    )


def make_model(name: str, width: int, store: Store) -> ModelArtifact:
    """Export a ranker of this width, seed 0."""
    torch.manual_seed(0)
    return export(Ranker(width), name=name, store=store, requests=make_requests(64), request_inputs=("user", "history"))
