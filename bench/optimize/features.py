"""What is known of MovieLens' users and films when a request arrives: numbered features, and the histories before each rating."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from ...demo.dataset import LIKED, Dataset
from ...demo.movielens import find_movielens, read_movielens
from ...demo.requests import HISTORY
from ...demo.split import Split, split_by_time

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

GENRES = 21
YEARS = 26
POPULARITIES = 12
ACTIVITIES = 14
HOURS = 24
WEEKDAYS = 7
SEGMENTS = ("casual", "regular", "power")
_MOST_HELD_OUT = 60
_FIRST_YEAR = 1900
_YEARS_EACH = 5


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The ratings, how they are split, and what is known of each user and film from the training part alone.

    Arrays are indexed by user (1..users) or item (1..items, 0 is padding): `genre`, `year`, `popularity`, `activity` and `favourite`
    int64, `item_mean` and `user_mean` float32 (mean rating in stars, minus the mean of all). `segments` maps users to SEGMENTS by how many
    ratings their history has, a third of the users each. `rated` has every item a user ever rated.
    """

    data: Dataset
    split: Split
    genre: Ints
    year: Ints
    popularity: Ints
    item_mean: Floats
    activity: Ints
    favourite: Ints
    user_mean: Floats
    segments: dict[int, str]
    rated: dict[int, set[int]]

    @property
    def users(self) -> int:
        return self.data.users

    @property
    def items(self) -> int:
        return self.data.items


def read_world(folder: Path) -> World:
    """Read and split a MovieLens folder; raises InputError as `read_movielens` does."""
    data = read_movielens(folder)
    split = split_by_time(data.frame, most=_MOST_HELD_OUT)
    train, counts = split.train, np.bincount(split.train["item"], minlength=data.items + 1)
    genre, year = _films(folder, data)
    per_user = np.bincount(train["user"], minlength=data.users + 1)
    return World(
        data=data,
        split=split,
        genre=genre,
        year=year,
        popularity=_bucket(counts, POPULARITIES),
        item_mean=_means(train, "item", data.items),
        activity=_bucket(per_user, ACTIVITIES),
        favourite=_favourites(train, genre, data.users),
        user_mean=_means(train, "user", data.users),
        segments=_thirds(per_user),
        rated={int(str(user)): set(mine.tolist()) for user, mine in data.frame.groupby("user")["item"]},
    )


def request_columns(world: World, user: Ints, timestamp: Ints, history: Ints) -> dict[str, np.ndarray]:
    """Every feature of requests: `user` and `timestamp` `[n]`, `history` `[n, HISTORY]` (latest last, padded with 0 in front)."""
    hours = timestamp // 3600
    return {
        "user": user,
        "activity": world.activity[user],
        "favourite": world.favourite[user],
        "hour": hours % HOURS,
        "weekday": hours // HOURS % WEEKDAYS,
        "user_mean": world.user_mean[user],
        "history": history,
        "history_genre": world.genre[history],
        "history_length": (history != 0).sum(axis=-1),
    }


def candidate_columns(world: World, item: Ints) -> dict[str, np.ndarray]:
    """Every feature of candidates: `item` of any shape."""
    return {
        "item": item,
        "genre": world.genre[item],
        "year": world.year[item],
        "popularity": world.popularity[item],
        "item_mean": world.item_mean[item],
    }


def oldest_first(history: Ints) -> Ints:
    """Histories `[n, HISTORY]` with their padding moved from the front to the back, as most sequence models take them."""
    length = (history != 0).sum(axis=1)
    place = (np.arange(HISTORY)[None, :] + (HISTORY - length)[:, None]) % HISTORY
    return np.take_along_axis(history, place, axis=1)


def _films(folder: Path, data: Dataset) -> tuple[Ints, Ints]:
    """First genre and year of every film; 0 where there is none."""
    movies = pd.read_csv(find_movielens(folder) / "movies.csv")
    ratings = pd.read_csv(find_movielens(folder) / "ratings.csv", usecols=["movieId"])
    numbers = np.unique(ratings["movieId"].to_numpy())
    names = sorted({name.split("|")[0] for name in movies["genres"]} - {"(no genres listed)"})
    genre, year = np.zeros(data.items + 1, dtype=np.int64), np.zeros(data.items + 1, dtype=np.int64)
    known = movies[movies["movieId"].isin(numbers)]
    for film, title, genres in zip(known["movieId"], known["title"], known["genres"], strict=True):
        item = int(np.searchsorted(numbers, film)) + 1
        first = genres.split("|")[0]
        genre[item] = names.index(first) + 1 if first in names else 0
        found = re.search(r"\((\d{4})\)\s*$", title)
        year[item] = np.clip((int(found[1]) - _FIRST_YEAR) // _YEARS_EACH + 1, 1, YEARS - 1) if found else 0
    return genre, year


def _bucket(counts: Ints, buckets: int) -> Ints:
    return np.minimum(np.log2(counts + 1).astype(np.int64), buckets - 1)


def _means(train: pd.DataFrame, column: str, most: int, prior: float = 10.0) -> Floats:
    """Mean rating minus the mean of all, drawn towards 0 as by `prior` ratings of the overall mean."""
    stars = train["rating"].to_numpy() - train["rating"].mean()
    total = np.bincount(train[column], weights=stars, minlength=most + 1)
    mean: Floats = (total / (np.bincount(train[column], minlength=most + 1) + prior)).astype(np.float32)
    return mean


def _favourites(train: pd.DataFrame, genre: Ints, users: int) -> Ints:
    """The genre each user liked most often in training."""
    liked = train[train["rating"] >= LIKED]
    counts = np.zeros((users + 1, GENRES), dtype=np.int64)
    np.add.at(counts, (liked["user"].to_numpy(), genre[liked["item"].to_numpy()]), 1)
    favourites: Ints = counts.argmax(axis=1)
    return favourites


def _thirds(per_user: Ints) -> dict[int, str]:
    bounds = np.quantile(per_user[1:], [1 / 3, 2 / 3])
    return {user: SEGMENTS[int(np.searchsorted(bounds, per_user[user], side="left"))] for user in range(1, len(per_user))}
