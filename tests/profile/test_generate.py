from __future__ import annotations

import numpy as np
from liftgate.core.signature import IdColumn, InputSpec, OutputSpec, Signature
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


def matrix(dtype: str, *columns: IdColumn) -> Signature:
    spec = InputSpec(name="x", dtype=dtype, shape=("rows", 3), role="candidate", id_columns=columns)
    return Signature(inputs=(spec,), outputs=SIGNATURE.outputs)


def test_id_columns_of_a_float_matrix_hold_ids_of_their_table_and_the_rest_fractions() -> None:
    signature = matrix("float32", IdColumn(column=0, rows_of_table=4), IdColumn(column=2))
    found = requests_from_signature(signature, requests=3, candidates=200)
    feeds = np.concatenate([f["x"] for f in found.feeds(signature)])
    assert feeds.dtype == np.float32
    assert set(feeds[:, 0]) == {0, 1, 2, 3}
    assert set(feeds[:, 2]) == set(range(16))
    assert len(set(feeds[:, 1])) > 100
    assert "the id range of x is unknown" in found.ref.note


def test_columns_of_an_integer_matrix_stay_inside_their_own_tables() -> None:
    signature = matrix("int64", *(IdColumn(column=i, rows_of_table=rows) for i, rows in enumerate((2, 3, 40))))
    found = requests_from_signature(signature, requests=3, candidates=200)
    feeds = np.concatenate([f["x"] for f in found.feeds(signature)])
    assert feeds.max(axis=0).tolist() == [1, 2, 39]
    assert "unknown" not in found.ref.note


def test_the_seed_decides_and_the_global_generator_is_given_back() -> None:
    np.random.seed(123)
    expected = np.random.random()
    np.random.seed(123)
    first = requests_from_signature(SIGNATURE, seed=4)
    assert np.random.random() == expected
    assert first.table.equals(requests_from_signature(SIGNATURE, seed=4).table)
    assert not first.table.equals(requests_from_signature(SIGNATURE, seed=5).table)
