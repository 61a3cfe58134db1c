"""Rankers of deepctr-torch; each takes one matrix, so a module around it takes features by name and puts them side by side."""

# The package is not in the environment that types are checked in, and has none.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import torch
from deepctr_torch import models
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

from ....demo.requests import HISTORY
from .. import features
from ..case import Case, Training

PACKAGE = "deepctr-torch"
WIDTH = 32
HIDDEN = (512, 256, 128)
_USER = ("user", "activity", "favourite", "hour", "weekday")
_ITEM = ("item", "genre", "year", "popularity")


class Columns(torch.nn.Module):
    """Puts features side by side as the model's columns."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        for module in model.modules():
            # The package starts its layers at a standard deviation of 0.0001, which takes it epochs to leave.
            if isinstance(module, torch.nn.Linear):
                module.reset_parameters()

    def columns(self, *columns: torch.Tensor) -> torch.Tensor:
        """Probabilities [rows] for features `[rows]` or `[rows, width]` in the order the model was built with; of two tasks the product."""
        wide = [column.float() if column.ndim > 1 else column.float().unsqueeze(1) for column in columns]
        found: torch.Tensor = self.model(torch.cat(wide, dim=1))
        return found.squeeze(-1) if found.shape[-1] == 1 else found[:, 0] * found[:, 1]


class Pooled(Columns):
    """Users, films and a history that is averaged."""

    def forward(  # noqa: PLR0917 - every feature is an input
        self,
        user: torch.Tensor,
        activity: torch.Tensor,
        favourite: torch.Tensor,
        hour: torch.Tensor,
        weekday: torch.Tensor,
        user_mean: torch.Tensor,
        history: torch.Tensor,
        item: torch.Tensor,
        genre: torch.Tensor,
        year: torch.Tensor,
        popularity: torch.Tensor,
        item_mean: torch.Tensor,
    ) -> torch.Tensor:
        """Probabilities [rows]."""
        sparse = (user, activity, favourite, hour, weekday, item, genre, year, popularity)
        return self.columns(*sparse, user_mean, item_mean, history)


class Attended(Columns):
    """Users, films and a history that each film attends to."""

    def forward(  # noqa: PLR0917 - every feature is an input
        self,
        user: torch.Tensor,
        activity: torch.Tensor,
        hour: torch.Tensor,
        weekday: torch.Tensor,
        user_mean: torch.Tensor,
        history: torch.Tensor,
        history_genre: torch.Tensor,
        history_length: torch.Tensor,
        item: torch.Tensor,
        genre: torch.Tensor,
        year: torch.Tensor,
        popularity: torch.Tensor,
        item_mean: torch.Tensor,
    ) -> torch.Tensor:
        """Probabilities [rows]."""
        sparse = (user, activity, hour, weekday, item, genre, year, popularity)
        return self.columns(*sparse, user_mean, item_mean, history, history_length, history_genre)


def _sparse(users: int, items: int, names: tuple[str, ...]) -> list[object]:
    sizes = {
        "user": users + 1,
        "activity": features.ACTIVITIES,
        "favourite": features.GENRES,
        "hour": features.HOURS,
        "weekday": features.WEEKDAYS,
        "item": items + 1,
        "genre": features.GENRES,
        "year": features.YEARS,
        "popularity": features.POPULARITIES,
    }
    return [SparseFeat(name, sizes[name], WIDTH) for name in names]


def _pooled(users: int, items: int) -> list[object]:
    history = VarLenSparseFeat(SparseFeat("history", items + 1, WIDTH, embedding_name="item"), HISTORY, "mean")
    return [*_sparse(users, items, (*_USER, *_ITEM)), DenseFeat("user_mean", 1), DenseFeat("item_mean", 1), history]


def _attended(users: int, items: int) -> list[object]:
    seen = SparseFeat("hist_item", items + 1, WIDTH, embedding_name="item")
    genres = SparseFeat("hist_genre", features.GENRES, WIDTH, embedding_name="genre")
    names = tuple(name for name in (*_USER, *_ITEM) if name != "favourite")
    histories = [VarLenSparseFeat(feature, HISTORY, length_name="history_length") for feature in (seen, genres)]
    return [*_sparse(users, items, names), DenseFeat("user_mean", 1), DenseFeat("item_mean", 1), *histories]


def _deepfm(users: int, items: int) -> torch.nn.Module:
    columns = _pooled(users, items)
    return Pooled(models.DeepFM(columns, columns, dnn_hidden_units=HIDDEN, init_std=0.02))


def _din(users: int, items: int) -> torch.nn.Module:
    return Attended(models.DIN(_attended(users, items), ["item", "genre"], dnn_hidden_units=HIDDEN, init_std=0.05))


def _mmoe(users: int, items: int) -> torch.nn.Module:
    sizes = {"expert_dnn_hidden_units": HIDDEN[:2], "gate_dnn_hidden_units": (64,), "tower_dnn_hidden_units": HIDDEN[2:]}
    return Pooled(models.MMOE(_pooled(users, items), num_experts=3, **sizes, task_names=("rated", "liked"), init_std=0.05))


_POOLED = (*_USER, "user_mean", "history")
CASES = (
    Case(
        name="deepfm",
        package=PACKAGE,
        request_inputs=_POOLED,
        candidate_inputs=(*_ITEM, "item_mean"),
        build=_deepfm,
        training=Training(loss="probability", epochs=3),
    ),
    Case(
        name="din",
        package=PACKAGE,
        request_inputs=("user", "activity", "hour", "weekday", "user_mean", "history", "history_genre", "history_length"),
        candidate_inputs=(*_ITEM, "item_mean"),
        build=_din,
        training=Training(loss="probability", epochs=1, negatives=2),
        padding="back",
    ),
    Case(
        name="mmoe",
        package=PACKAGE,
        request_inputs=_POOLED,
        candidate_inputs=(*_ITEM, "item_mean"),
        build=_mmoe,
        training=Training(loss="probability", epochs=3),
    ),
)
