"""The ratings everything in the demo starts from, wherever they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..core.errors import InputError

PADDING = 0
LIKED = 4.0


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Ratings in each user's own time order.

    `frame` has the columns `user` int64 (1..users), `item` int64 (1..items, 0 is padding), `rating` float64 (0.5..5) and `timestamp`
    int64 (seconds), sorted by user, timestamp, item. `titles` names items where names exist.
    """

    frame: pd.DataFrame
    source: str
    generated: bool
    titles: Mapping[int, str] = field(default_factory=dict)

    @property
    def users(self) -> int:
        """Highest user number."""
        return int(self.frame["user"].max())

    @property
    def items(self) -> int:
        """Highest item number."""
        return int(self.frame["item"].max())

    @property
    def sentence(self) -> str:
        """What the data is, in one line that also says when nobody real is behind it."""
        size = f"{len(self.frame):,} ratings, {self.frame['user'].nunique():,} users, {self.frame['item'].nunique():,} items"
        if self.generated:
            return f"The data is GENERATED ({self.source}; {size}): it shows how the tools work and says nothing about real users."
        return f"The data is {self.source} ({size})."


def dataset_of(ratings: pd.DataFrame, *, source: str, generated: bool, titles: Mapping[int, str] | None = None) -> Dataset:
    """Number users and items from 1 in the order of their original ids, and sort; `titles` is keyed by original id."""
    users = np.unique(ratings["user"].to_numpy())
    items = np.unique(ratings["item"].to_numpy())
    frame = pd.DataFrame(
        {
            "user": np.searchsorted(users, ratings["user"].to_numpy()).astype(np.int64) + 1,
            "item": np.searchsorted(items, ratings["item"].to_numpy()).astype(np.int64) + 1,
            "rating": ratings["rating"].to_numpy(dtype=np.float64),
            "timestamp": ratings["timestamp"].to_numpy(dtype=np.int64),
        }
    )
    frame = frame.sort_values(["user", "timestamp", "item"], kind="stable").reset_index(drop=True)
    if frame.duplicated(["user", "item"]).any():
        twice = frame[frame.duplicated(["user", "item"])].iloc[0]
        found = f"user {users[int(twice['user']) - 1]} rated item {items[int(twice['item']) - 1]} twice"
        raise InputError.mismatch(source, expected="one rating per user and item", found=found)
    names = {number: titles[int(item)] for number, item in enumerate(items, start=1) if int(item) in titles} if titles else {}
    return Dataset(frame=frame, source=source, generated=generated, titles=names)


def first_users(data: Dataset, *, users: int, ratings: int) -> Dataset:
    """A small cut: an even sample of `users` users over the whole numbering, and at most the last `ratings` ratings of each."""
    everyone = data.frame["user"].unique()
    kept = everyone if len(everyone) <= users else everyone[np.linspace(0, len(everyone) - 1, users).round().astype(int)]
    cut = data.frame[data.frame["user"].isin(kept)].groupby("user").tail(ratings)
    return dataset_of(cut, source=f"{data.source}, cut to {len(kept)} users", generated=data.generated, titles=data.titles)
