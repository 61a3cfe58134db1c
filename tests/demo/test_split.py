from __future__ import annotations

import pandas as pd
import pytest
from liftgate.core.errors import InputError
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.demo.case import prepare
from liftgate.demo.dataset import Dataset
from liftgate.demo.generator import generate
from liftgate.demo.requests import CANDIDATES, HISTORY, Popularity, histories, requests_of
from liftgate.demo.scale import TINY
from liftgate.demo.split import recent_of_power_users, segments_by_activity, split_by_time

SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request"),
        InputSpec(name="history", dtype="int64", shape=("rows", HISTORY), role="request"),
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


def ratings(counts: dict[int, int]) -> pd.DataFrame:
    rows = [{"user": u, "item": i, "rating": 3.0 + i % 3, "timestamp": 1000 * u + i} for u, n in counts.items() for i in range(1, n + 1)]
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def generated() -> Dataset:
    return generate(seed=1, users=80, items=600)


def test_each_user_is_cut_in_their_own_time_order() -> None:
    split = split_by_time(ratings({1: 10, 2: 20}))
    items = {name: part.groupby("user")["item"].agg(list).to_dict() for name, part in vars(split).items() if name != "segments"}
    assert items["holdout"] == {1: [9, 10], 2: [17, 18, 19, 20]}
    assert items["validation"] == {1: [7, 8], 2: [13, 14, 15, 16]}
    assert items["train"] == {1: list(range(1, 7)), 2: list(range(1, 13))}


def test_no_rating_is_in_two_parts_and_every_part_follows_the_one_before(generated: Dataset) -> None:
    split = split_by_time(generated.frame)
    assert len(split.train) + len(split.validation) + len(split.holdout) == len(generated.frame)
    latest_train = split.train.groupby("user")["timestamp"].max()
    validation = split.validation.groupby("user")["timestamp"]
    assert (latest_train <= validation.min()).all()
    assert (validation.max() <= split.holdout.groupby("user")["timestamp"].min()).all()
    pairs = [set(zip(part["user"], part["item"], strict=True)) for part in (split.train, split.validation, split.holdout)]
    assert not (pairs[0] & pairs[1] or pairs[0] & pairs[2] or pairs[1] & pairs[2])


def test_segments_count_only_what_came_before_the_holdout() -> None:
    # User 5 is the most active in training; user 1 has most ratings only after it.
    train = ratings({1: 3, 2: 4, 3: 4, 4: 5, 5: 9})
    assert segments_by_activity(train) == {5: "power", 4: "casual", 3: "casual", 2: "casual", 1: "casual"}


def test_equally_active_users_are_in_the_same_segment() -> None:
    assert set(segments_by_activity(ratings({1: 7, 2: 7, 3: 7, 4: 7, 5: 7})).values()) == {"power"}


def test_fine_tuning_sees_only_the_recent_half_of_power_users() -> None:
    split = split_by_time(ratings({1: 10, 2: 10, 3: 10, 4: 10, 5: 40}))
    assert recent_of_power_users(split).groupby("user")["item"].agg(list).to_dict() == {5: list(range(13, 25))}


def test_too_few_ratings_are_refused() -> None:
    with pytest.raises(InputError, match="user 2: expected at least 6 ratings, found 5"):
        split_by_time(ratings({1: 10, 2: 5}))


def test_a_history_holds_what_came_before_latest_last() -> None:
    found = histories(ratings({1: 3, 2: 60}))
    assert found[0].tolist() == [0] * 50
    assert found[2].tolist() == [0] * 48 + [1, 2]
    assert found[3].tolist() == [0] * 50
    assert found[3 + 55].tolist() == list(range(6, 56))


def test_a_request_holds_the_real_items_and_unrated_ones_with_labels_at_four(generated: Dataset) -> None:
    split = split_by_time(generated.frame)
    rated = {user: set(mine["item"]) for user, mine in generated.frame.groupby("user")}
    requests = requests_of(
        split.holdout,
        before=pd.concat([split.train, split.validation]),
        popularity=Popularity(split.train, generated.items),
        rated=rated,  # type: ignore[arg-type]  # pandas does not know that users are integers
        segments=split.segments,
        name="holdout",
        seed=0,
    )
    asked = split.holdout.set_index(["user", "item"])["rating"].to_dict()
    seen = 0
    for row in requests.table.to_pylist():
        user, items = row["user"], row["item"]
        assert len(set(items)) == CANDIDATES
        real = [i for i in items if i in rated[user]]
        seen += len(real)
        assert all((user, i) in asked for i in real)
        assert [i for i, label in zip(items, row["label"], strict=True) if label] == [i for i in real if asked[user, i] >= 4]
        before = set(row["history"]) - {0}
        assert before <= rated[user] and not before & set(items)
    assert seen == len(split.holdout)


def test_requests_feed_the_rankers_signature(generated: Dataset) -> None:
    case = prepare(generated, TINY, seed=0)
    for requests in (case.calibration, case.validation, case.holdout):
        assert isinstance(requests, Requests)
        feeds = next(requests.feeds(SIGNATURE))
        assert {name: array.shape for name, array in feeds.items()} == {"user": (100,), "history": (100, 50), "item": (100,)}
    assert not set(case.validation.request_ids) & set(case.holdout.request_ids)


def test_the_same_seed_asks_the_same(generated: Dataset) -> None:
    first, again, other = (prepare(generated, TINY, seed=seed).holdout.table for seed in (5, 5, 6))
    assert first.equals(again)
    assert not first.equals(other)


def test_popularity_draws_in_proportion_to_training_counts_plus_one() -> None:
    import numpy as np  # noqa: PLC0415

    popularity = Popularity(pd.DataFrame({"item": [1, 1, 1, 2]}), items=3)
    drawn = popularity.draw(np.random.default_rng(0), 70_000)
    # Counts 3, 1, 0 plus one each: 4/7, 2/7, 1/7; four standard errors are 0.0075.
    assert np.allclose(np.bincount(drawn, minlength=4)[1:] / 70_000, [4 / 7, 2 / 7, 1 / 7], atol=0.0075)
