"""Ranking requests from ratings nobody trained on: what a user rated next, among films drawn by popularity."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from ...core.columns import LABEL, REQUEST_ID, SEGMENT, TIMESTAMP, USER_ID
from ...core.requests import Requests
from ...demo.dataset import LIKED
from ...demo.requests import Popularity, histories
from .case import Case
from .features import Ints, World, candidate_columns, oldest_first, request_columns

# Many relevant films among few candidates and every user asked often: int8 changes a ranking by less than a few requests' noise.
CANDIDATES = 50
RATED_PER_REQUEST = 20
LEAST_PER_USER = {"validation": 8, "holdout": 16}
Part = Literal["validation", "holdout"]


class Asked:
    """Requests of every user before any model's inputs are chosen.

    `user` and `timestamp` int64 `[n]`, `history` int64 `[n, HISTORY]` (latest last), `item` int64 and `label` float32 `[n, candidates]`.
    """

    def __init__(self, world: World, part: Part, *, candidates: int = CANDIDATES, least: int | None = None, seed: int = 0) -> None:
        """Requests of up to RATED_PER_REQUEST of a user's ratings in `part`; users with fewer than `least` are asked again.

        Asked again means the same ratings among other films. A rating of 4 or more is relevant; ratings without one are left out. What the
        user rated lower stays among the candidates: the hard part of telling good from bad.
        """
        self.world = world
        self.name = part
        often = LEAST_PER_USER[part] if least is None else least
        rng = np.random.default_rng([seed, len(part), candidates])
        popularity = Popularity(world.split.train, world.items)
        users, times, past, items, labels = [], [], [], [], []
        for user, chunks in _chunks(world, part):
            for number in range(max(often, len(chunks)) if chunks else 0):
                stars, history, time = chunks[number % len(chunks)]
                drawn, label = _candidates(stars, popularity, world.rated[user], candidates, rng)
                users.append(user)
                times.append(time)
                past.append(history)
                items.append(drawn)
                labels.append(label)
        self.user, self.timestamp = np.array(users), np.array(times)
        self.history, self.item, self.label = np.stack(past), np.stack(items), np.stack(labels)

    def for_case(self, case: Case) -> Requests:
        """The same requests with the inputs that `case` takes."""
        history = self.history if case.padding == "front" else oldest_first(self.history)
        once = request_columns(self.world, self.user, self.timestamp, history)
        each = candidate_columns(self.world, self.item)
        columns: dict[str, list[object]] = {
            REQUEST_ID: [f"{self.name}-{number}" for number in range(len(self.user))],
            USER_ID: [str(user) for user in self.user.tolist()],
            SEGMENT: [self.world.segments[user] for user in self.user.tolist()],
            TIMESTAMP: self.timestamp.tolist(),
            **{name: list(once[name]) for name in case.request_inputs},
            **{name: list(each[name]) for name in case.candidate_inputs},
            LABEL: list(self.label),
        }
        return Requests.of(columns, source=f"{self.name}.parquet")


def _chunks(world: World, part: Part) -> list[tuple[int, list[tuple[pd.DataFrame, Ints, int]]]]:
    """Per user: the ratings of each request with a relevant one among them, the history before the first, and its time."""
    split = world.split
    before = split.train if part == "validation" else pd.concat([split.train, split.validation])
    asked = split.validation if part == "validation" else split.holdout
    both = pd.concat([before.assign(asked=False), asked.assign(asked=True)])
    both = both.sort_values(["user", "timestamp", "item"], kind="stable").reset_index(drop=True)
    history = histories(both)
    found = []
    for user, mine in both[both["asked"]].groupby("user"):
        chunks = []
        for start in range(0, len(mine), RATED_PER_REQUEST):
            chunk = mine.iloc[start : start + RATED_PER_REQUEST]
            if (chunk["rating"] >= LIKED).any():
                chunks.append((chunk, history[chunk.index[0]], int(chunk["timestamp"].iloc[0])))
        found.append((int(str(user)), chunks))
    return found


def _candidates(
    chunk: pd.DataFrame, popularity: Popularity, rated: set[int], count: int, rng: np.random.Generator
) -> tuple[Ints, np.ndarray]:
    real = chunk["item"].to_numpy()
    drawn: dict[int, None] = {}
    while len(drawn) < count - len(real):
        for item in popularity.draw(rng, count).tolist():
            if item not in rated and len(drawn) < count - len(real):
                drawn[item] = None
    items = np.concatenate([real, np.fromiter(drawn, dtype=np.int64)])
    labels = np.concatenate([chunk["rating"].to_numpy() >= LIKED, np.zeros(len(drawn), dtype=bool)]).astype(np.float32)
    order = rng.permutation(len(items))
    return items[order], labels[order]
