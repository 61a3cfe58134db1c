from __future__ import annotations

import numpy as np
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.profile.generate import requests_from_signature

SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request", rows_of_table=7),
        InputSpec(name="history", dtype="int32", shape=("rows", "history"), role="request"),
        InputSpec(name="features", dtype="float32", shape=("rows", 3), role="candidate"),
        InputSpec(name="fresh", dtype="bool", shape=("rows",), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


def test_generated_requests_fit_the_signature_and_say_that_they_are_generated() -> None:
    found = requests_from_signature(SIGNATURE, requests=5, candidates=11)
    feeds = list(found.feeds(SIGNATURE))
    assert len(feeds) == 5
    SIGNATURE.check(feeds[0], where="generated")
    assert feeds[0]["features"].shape == (11, 3)
    assert feeds[0]["history"].shape == (11, 20)
    assert found.ref.generated
    assert "the id range of history is unknown" in found.ref.note
    assert found.labels is None


def test_ids_stay_inside_their_embedding_table() -> None:
    feeds = list(requests_from_signature(SIGNATURE, requests=200, candidates=1).feeds(SIGNATURE))
    assert {int(f["user"][0]) for f in feeds} == set(range(7))


def test_the_seed_decides_and_the_global_generator_is_given_back() -> None:
    np.random.seed(123)
    expected = np.random.random()
    np.random.seed(123)
    first = requests_from_signature(SIGNATURE, seed=4)
    assert np.random.random() == expected
    assert first.table.equals(requests_from_signature(SIGNATURE, seed=4).table)
    assert not first.table.equals(requests_from_signature(SIGNATURE, seed=5).table)
