from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from liftgate.core.errors import InputError
from liftgate.demo.dataset import dataset_of, first_users
from liftgate.demo.generator import generate
from liftgate.demo.movielens import read_movielens

RATINGS = "userId,movieId,rating,timestamp\n7,30,4.0,200\n7,10,3.5,100\n5,30,5.0,50\n"
MOVIES = "movieId,title,genres\n10,Ten (1979),Comedy\n30,Thirty (1999),Drama\n99,Unseen,Drama\n"


def folder(tmp_path: Path, ratings: str = RATINGS, movies: str = MOVIES) -> Path:
    (tmp_path / "ratings.csv").write_text(ratings)
    (tmp_path / "movies.csv").write_text(movies)
    return tmp_path


def test_users_and_items_are_numbered_from_one_and_sorted_by_time(tmp_path: Path) -> None:
    data = read_movielens(folder(tmp_path))
    assert data.frame.to_dict("list") == {"user": [1, 2, 2], "item": [2, 1, 2], "rating": [5.0, 3.5, 4.0], "timestamp": [50, 100, 200]}
    assert data.titles == {1: "Ten (1979)", 2: "Thirty (1999)"}
    assert not data.generated


def test_the_usual_subfolder_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "ml-latest-small"
    inner.mkdir()
    folder(inner)
    assert len(read_movielens(tmp_path).frame) == 3


@pytest.mark.parametrize(
    ("ratings", "words"),
    [
        (RATINGS.replace("rating,", "stars,"), "expected a column 'rating'"),
        (RATINGS.replace("3.5", "good"), "line 3: column 'rating': expected a number, found 'good'"),
        (RATINGS.replace("3.5", "7"), "line 3: expected a rating from 0.5 to 5, found 7.0"),
        (RATINGS + "7,30,1.0,300\n", "user 7 rated item 30 twice"),
        ("userId,movieId,rating,timestamp\n", "only the header"),
        ("", "is not a readable csv file"),
        ('userId,movieId,rating,timestamp\n1,2,3,4\n1,2,3,4,5,6\n"', "is not a readable csv file"),
    ],
)
def test_odd_ratings_are_refused_with_the_place(tmp_path: Path, ratings: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_movielens(folder(tmp_path, ratings=ratings))
    assert words in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a folder with ratings\.csv"):
        read_movielens(tmp_path / "nowhere")
    folder(tmp_path)
    (tmp_path / "movies.csv").unlink()
    with pytest.raises(InputError, match=r"movies\.csv: expected a MovieLens csv file, found nothing"):
        read_movielens(tmp_path)


def test_a_cut_keeps_the_latest_ratings_of_evenly_spread_users() -> None:
    rows = [{"user": u, "item": i, "rating": 3.0, "timestamp": 100 * u + i} for u in range(1, 10) for i in range(1, 5)]
    data = dataset_of(pd.DataFrame(rows), source="here", generated=False)
    cut = first_users(data, users=3, ratings=2)
    assert cut.frame["timestamp"].tolist() == [103, 104, 503, 504, 903, 904]
    assert "cut to 3 users" in cut.source


def test_the_same_seed_generates_the_same_ratings() -> None:
    first, again, other = (
        generate(seed=3, users=30, items=500),
        generate(seed=3, users=30, items=500),
        generate(seed=4, users=30, items=500),
    )
    assert first.frame.equals(again.frame)
    assert not first.frame.equals(other.frame)
    assert "GENERATED" in first.sentence


def test_generated_popularity_follows_zipf_and_power_users_do_most() -> None:
    frame = generate(seed=0).frame
    popularity = np.sort(frame.groupby("item").size().to_numpy())[::-1]
    ranks = np.arange(10, 1000)
    slope = np.polyfit(np.log(ranks + 10), np.log(popularity[ranks]), 1)[0]
    # ml-latest-small, by the same formula: -0.60.
    assert -0.75 < slope < -0.5
    activity = frame.groupby("user").size().sort_values(ascending=False)
    assert activity.min() >= 20
    assert 0.55 < activity.iloc[: len(activity) // 5].sum() / len(frame) < 0.75
    assert 80_000 < len(frame) < 130_000
    assert set(frame["rating"].unique()) <= {x / 2 for x in range(1, 11)}
