from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from liftgate.core.artifact import ModelArtifact
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.export import export
from liftgate.runtime.archive import quiet
from torch import nn

HISTORY = 6


class Ranker(nn.Module):
    """Embeddings, attention over the history, and an MLP on top."""

    def __init__(self) -> None:
        super().__init__()
        self.users = nn.Embedding(30, 8)
        self.items = nn.Embedding(50, 8)
        self.query = nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(24, 32), nn.SiLU(), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 1))

    def forward(self, user: torch.Tensor, item: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        items, past = self.items(item), self.items(history)
        weights = (past @ self.query(items).unsqueeze(-1)).squeeze(-1).masked_fill(history == 0, -1e9).softmax(-1)
        taste = (weights.unsqueeze(1) @ past).squeeze(1)
        score: torch.Tensor = self.mlp(torch.cat([self.users(user), items, taste], -1))
        return score.squeeze(-1)


def make_requests(count: int = 12) -> Requests:
    random = np.random.default_rng(0)
    sizes = [3 + i % 4 for i in range(count)]
    return Requests.of(
        {
            "request_id": [f"r{i}" for i in range(count)],
            "user_id": [f"u{i % 5}" for i in range(count)],
            "user": random.integers(0, 30, count).tolist(),
            "item": [random.integers(0, 50, size).tolist() for size in sizes],
            "history": random.integers(0, 50, (count, HISTORY)).tolist(),
            "label": [[float(i == 0) for i in range(size)] for size in sizes],
        },
        source="sample.parquet",
    )


@pytest.fixture
def small_models_may_get_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices this small gain nothing from int8; how much they lose depends on the machine, and is asked in test_timing only."""
    monkeypatch.setattr("liftgate.optimize.slower.TOLERATED_US", math.inf)


@pytest.fixture(scope="session")
def requests() -> Requests:
    return make_requests()


@pytest.fixture(scope="session")
def ranker() -> Ranker:
    torch.manual_seed(0)
    return Ranker().eval()


@pytest.fixture(scope="session")
def archive(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "v1.1.pt"
    rows = torch.export.Dim("rows", min=1)
    example = (torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]), torch.randint(0, 50, (3, HISTORY)))
    with quiet():
        torch.export.save(torch.export.export(ranker, example, dynamic_shapes=({0: rows}, {0: rows}, {0: rows})), path)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def exported(ranker: Ranker, store: Store, requests: Requests) -> ModelArtifact:
    return export(ranker, name="v1.1", store=store, requests=requests)
