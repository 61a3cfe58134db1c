"""Retrieval models of torch-rechub as rankers: the user's vector times the film's."""

# The package is not in the environment that types are checked in, and has none.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.basic.initializers import RandomNormal
from torch_rechub.models import matching

from ....demo.requests import HISTORY
from .. import features
from ..case import Case, Training

PACKAGE = "torch-rechub"
WIDTH = 64
_START = RandomNormal(0, 0.05)


class Dssm(torch.nn.Module):
    """Two towers, cosine."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - the package has no types
        super().__init__()
        self.model = model

    def users(
        self, user: torch.Tensor, activity: torch.Tensor, favourite: torch.Tensor, hour: torch.Tensor, history: torch.Tensor
    ) -> torch.Tensor:
        """Users' vectors [rows, width]."""
        found: torch.Tensor = self.model.user_tower(
            {"user": user, "activity": activity, "favourite": favourite, "hour": hour, "history": history}
        )
        return found

    def films(self, item: torch.Tensor, genre: torch.Tensor, year: torch.Tensor, popularity: torch.Tensor) -> torch.Tensor:
        """Films' vectors [rows, width]."""
        found: torch.Tensor = self.model.item_tower({"item": item, "genre": genre, "year": year, "popularity": popularity})
        return found

    def forward(  # noqa: PLR0917 - every feature is an input
        self,
        user: torch.Tensor,
        activity: torch.Tensor,
        favourite: torch.Tensor,
        hour: torch.Tensor,
        history: torch.Tensor,
        item: torch.Tensor,
        genre: torch.Tensor,
        year: torch.Tensor,
        popularity: torch.Tensor,
    ) -> torch.Tensor:
        """Scores [rows]: the model's own forward, a sigmoid of the cosine."""
        asked = {"user": user, "activity": activity, "favourite": favourite, "hour": hour, "history": history}
        found: torch.Tensor = self.model({**asked, "item": item, "genre": genre, "year": year, "popularity": popularity})
        return found


class Gru4Rec(torch.nn.Module):
    """A GRU over the history; films are normalized embeddings."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - the package has no types
        super().__init__()
        self.model = model

    def users(self, user: torch.Tensor, activity: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        """Users' vectors [rows, width]."""
        found: torch.Tensor = self.model.user_tower({"user": user, "activity": activity, "history": history})
        return found.squeeze(1)

    def films(self, item: torch.Tensor) -> torch.Tensor:
        """Films' vectors [rows, width], as the model's item tower gives them; that one wants negatives too."""
        vectors = self.model.embedding({"item": item}, self.model.item_features, squeeze_dim=True)
        return functional.normalize(vectors, p=2, dim=-1)

    def forward(self, user: torch.Tensor, activity: torch.Tensor, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Cosines [rows]."""
        return (self.users(user, activity, history) * self.films(item)).sum(dim=-1)


class Sasrec(torch.nn.Module):
    """Self-attention over the history, of which the last film's place is the user's vector."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - the package has no types
        super().__init__()
        self.model = model

    def users(self, history: torch.Tensor) -> torch.Tensor:
        """Users' vectors [rows, width]."""
        found: torch.Tensor = self.model.user_tower({"seq": history}).squeeze(1)
        return found

    def films(self, item: torch.Tensor) -> torch.Tensor:
        """Films' vectors [rows, width]: the table of the history (the model's item tower asks for an attribute that is not there)."""
        found: torch.Tensor = self.model.item_emb.embed_dict["seq"](item)
        return found

    def forward(self, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Scores [rows]."""
        return (self.users(history) * self.films(item)).sum(dim=-1)


def _sparse(name: str, size: int) -> object:
    return SparseFeature(name, size, WIDTH, initializer=_START)


def _history(items: int, name: str, pooling: str, shared: str | None) -> object:
    return SequenceFeature(name, items + 1, WIDTH, pooling=pooling, shared_with=shared, padding_idx=0, initializer=_START)


def _user(users: int) -> list[object]:
    return [_sparse("user", users + 1), _sparse("activity", features.ACTIVITIES)]


def _dssm(users: int, items: int) -> torch.nn.Module:
    user = [
        *_user(users),
        _sparse("favourite", features.GENRES),
        _sparse("hour", features.HOURS),
        _history(items, "history", "mean", "item"),
    ]
    item = [
        _sparse("item", items + 1),
        _sparse("genre", features.GENRES),
        _sparse("year", features.YEARS),
        _sparse("popularity", features.POPULARITIES),
    ]
    towers = [{"dims": [512, 256, 128], "activation": "prelu"} for _ in range(2)]
    return Dssm(matching.DSSM(user, item, *towers))


def _gru4rec(users: int, items: int) -> torch.nn.Module:
    history, item = _history(items, "history", "concat", "item"), _sparse("item", items + 1)
    tower = {"dims": [512, 256, WIDTH], "activation": "prelu"}
    return Gru4Rec(matching.GRU4Rec(_user(users), [history], [item], [_history(items, "negatives", "concat", "item")], tower))


def _sasrec(users: int, items: int) -> torch.nn.Module:
    sequences = [_history(items, "seq", "concat", None), *(_history(items, name, "concat", "seq") for name in ("pos", "neg"))]
    return Sasrec(matching.SASRec(sequences, max_len=HISTORY, dropout_rate=0.2, num_blocks=2, num_heads=2))


CASES = (
    Case(
        name="dssm",
        package=PACKAGE,
        request_inputs=("user", "activity", "favourite", "hour", "history"),
        candidate_inputs=("item", "genre", "year", "popularity"),
        build=_dssm,
        training=Training(loss="softmax", epochs=4, negatives=256, temperature=0.1),
    ),
    Case(
        name="gru4rec",
        package=PACKAGE,
        request_inputs=("user", "activity", "history"),
        candidate_inputs=("item",),
        build=_gru4rec,
        training=Training(loss="softmax", epochs=4, negatives=256, temperature=0.1),
    ),
    Case(
        name="sasrec",
        package=PACKAGE,
        request_inputs=("history",),
        candidate_inputs=("item",),
        build=_sasrec,
        training=Training(loss="softmax", epochs=4, negatives=256),
        padding="back",
    ),
)
