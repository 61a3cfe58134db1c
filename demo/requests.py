"""Ranking requests made from held-out ratings: what a user really rated later, hidden among items drawn by popularity."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..core.columns import LABEL, REQUEST_ID, SEGMENT, TIMESTAMP, USER_ID
from ..core.errors import InputError
from ..core.requests import Requests
from .dataset import LIKED, PADDING

HISTORY = 50
CANDIDATES = 100
RATED_PER_REQUEST = 6
_COLUMNS = (REQUEST_ID, USER_ID, SEGMENT, TIMESTAMP, "user", "history", "item", LABEL)


class Popularity:
    """Draws items with probability proportional to one plus their number of training ratings."""

    def __init__(self, train: pd.DataFrame, items: int) -> None:
        self.items = items
        counts = np.bincount(train["item"].to_numpy(), minlength=items + 1)[1:] + 1.0
        self._up_to = np.cumsum(counts) / counts.sum()

    def draw(self, rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
        """Items int64 of this shape, with repetition."""
        return np.searchsorted(self._up_to, rng.random(shape), side="right").astype(np.int64) + 1


def histories(ratings: pd.DataFrame) -> np.ndarray:
    """What each rating's user had rated before it: int64 `[ratings, HISTORY]`, latest last, padded with 0 in front.

    `ratings` is sorted by user and time.
    """
    items = ratings["item"].to_numpy()
    position = ratings.groupby("user").cumcount().to_numpy()
    back = np.arange(HISTORY, 0, -1)
    places = np.arange(len(items))[:, None] - back[None, :]
    return np.where(position[:, None] >= back[None, :], items[np.maximum(places, 0)], PADDING).astype(np.int64)


def requests_of(
    part: pd.DataFrame,
    *,
    before: pd.DataFrame,
    popularity: Popularity,
    rated: dict[int, set[int]],
    segments: dict[int, str],
    name: str,
    seed: int,
    note: str = "",
) -> Requests:
    """Requests from the ratings of `part`, `RATED_PER_REQUEST` of a user at a time, each among `CANDIDATES` items in random order.

    `before` holds the users' ratings that precede `part`; a request's history is the user's last 50 ratings before its first rated
    item. The other candidates are drawn by popularity from what the user never rates (`rated` has all of a user's items, so that no
    unlabelled favourite counts as a miss). Label is 1 for an item rated 4 or more.
    """
    if part.empty:
        raise InputError.mismatch(f"requests '{name}'", expected="ratings to ask about", found="none")
    rng = np.random.default_rng([seed, *name.encode()])
    both = pd.concat([before.assign(asked=False), part.assign(asked=True)])
    both = both.sort_values(["user", "timestamp", "item"], kind="stable").reset_index(drop=True)
    history = histories(both)
    rows: dict[str, list[object]] = {key: [] for key in _COLUMNS}
    for user, mine in both[both["asked"]].groupby("user"):
        number = int(str(user))
        for start in range(0, len(mine), RATED_PER_REQUEST):
            chunk = mine.iloc[start : start + RATED_PER_REQUEST]
            items, labels = _candidates(chunk, popularity, rated[number], rng)
            rows[REQUEST_ID].append(f"{name}-{number}-{start // RATED_PER_REQUEST}")
            rows[USER_ID].append(str(number))
            rows[SEGMENT].append(segments[number])
            rows[TIMESTAMP].append(int(chunk["timestamp"].iloc[0]))
            rows["user"].append(number)
            rows["history"].append(history[chunk.index[0]])
            rows["item"].append(items)
            rows[LABEL].append(labels)
    return Requests.of(rows, source=f"{name}.parquet", note=note)


def _candidates(chunk: pd.DataFrame, popularity: Popularity, rated: set[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    real = chunk["item"].to_numpy()
    unrated = popularity.items - len(rated)
    if unrated < CANDIDATES - len(real):
        where, expected = (
            f"user {int(chunk['user'].iloc[0])}",
            f"at least {CANDIDATES - len(real)} unrated items to hide the rated ones among",
        )
        raise InputError.mismatch(where, expected=expected, found=f"{unrated}", fix="give ratings with a larger catalogue")
    drawn: dict[int, None] = {}
    while len(drawn) < CANDIDATES - len(real):
        for item in popularity.draw(rng, CANDIDATES).tolist():
            if item not in rated and len(drawn) < CANDIDATES - len(real):
                drawn[item] = None
    items = np.concatenate([real, np.fromiter(drawn, dtype=np.int64)])
    labels = np.concatenate([chunk["rating"].to_numpy() >= LIKED, np.zeros(len(drawn), dtype=bool)]).astype(np.float32)
    order = rng.permutation(len(items))
    return items[order], labels[order]
