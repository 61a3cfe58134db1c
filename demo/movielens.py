"""Reading a folder of MovieLens csv files (ml-latest-small and its larger siblings share the format)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from .dataset import Dataset, dataset_of

RATINGS_FILE = "ratings.csv"
MOVIES_FILE = "movies.csv"
_RATINGS = {"userId": "user", "movieId": "item", "rating": "rating", "timestamp": "timestamp"}
_FIX = "give a folder with MovieLens' ratings.csv and movies.csv, or leave --data out to use generated data"


def find_movielens(folder: Path) -> Path:
    """`folder`, or its subfolder `ml-latest-small` when the ratings are there; raises InputError when neither has them."""
    for place in (folder, folder / "ml-latest-small"):
        if (place / RATINGS_FILE).is_file():
            return place
    found = f"no {RATINGS_FILE}" if folder.is_dir() else "a file" if folder.exists() else "nothing"
    raise InputError.mismatch(str(folder), expected=f"a folder with {RATINGS_FILE} and {MOVIES_FILE}", found=found, fix=_FIX)


def read_movielens(folder: Path) -> Dataset:
    """Ratings and titles of a MovieLens folder.

    Raises InputError when a file is missing, is not csv, lacks a column, holds something other than numbers, a rating outside 0.5..5 or a
    user who rated one movie twice.
    """
    place = find_movielens(folder)
    raw = _read_csv(place / RATINGS_FILE, tuple(_RATINGS))
    for column in _RATINGS:
        _check_numbers(raw, column, place / RATINGS_FILE)
    ratings = raw.rename(columns=_RATINGS)
    out_of_range = ~ratings["rating"].between(0.5, 5.0)
    if out_of_range.any():
        row = int(np.flatnonzero(out_of_range.to_numpy())[0])
        found = str(ratings["rating"].iloc[row])
        raise InputError.mismatch(f"{place / RATINGS_FILE}: line {row + 2}", expected="a rating from 0.5 to 5", found=found)
    movies = _read_csv(place / MOVIES_FILE, ("movieId", "title"))
    _check_numbers(movies, "movieId", place / MOVIES_FILE)
    titles = dict(zip(movies["movieId"].astype(int).tolist(), movies["title"].astype(str).tolist(), strict=True))
    return dataset_of(ratings, source=f"MovieLens, folder {place.name}", generated=False, titles=titles)


def _read_csv(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path, encoding="utf-8")
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="a MovieLens csv file", found="nothing", fix=_FIX) from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(str(path), f"is not a readable csv file ({str(error).splitlines()[0]})", fix=_FIX) from None
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns[:8]))
        raise InputError.mismatch(str(path), expected=f"a column '{missing[0]}'", found=found, fix=_FIX)
    if frame.empty:
        raise InputError.mismatch(str(path), expected="at least one row", found="only the header", fix=_FIX)
    return frame[list(columns)]


def _check_numbers(frame: pd.DataFrame, column: str, path: Path) -> None:
    numbers = pd.to_numeric(frame[column], errors="coerce")
    bad = np.flatnonzero(~np.isfinite(numbers.to_numpy(dtype=np.float64)))
    if len(bad):
        at = f"{path}: line {int(bad[0]) + 2}: column '{column}'"
        raise InputError.mismatch(at, expected="a number", found=repr(frame[column].iloc[int(bad[0])]), fix=_FIX)
