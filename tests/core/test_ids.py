from __future__ import annotations

import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.core.ids import WrongId, wrong_id
from liftgate.core.requests import Requests
from liftgate.core.signature import IdColumn, InputSpec, OutputSpec, Signature

# A DeepCTR matrix: an id of 20, a number, an id of a table nobody knows.
MATRIX = InputSpec(
    name="x",
    dtype="float32",
    shape=("rows", 3),
    role="candidate",
    id_columns=(IdColumn(column=0, rows_of_table=20), IdColumn(column=2)),
)


@pytest.mark.parametrize(
    ("row", "place", "found"),
    [
        ([20, 0.5, 3], "[0]", "20.0"),
        ([-1, 0.5, 3], "[0]", "-1.0"),
        ([3.5, 0.5, 3], "[0]", "3.5"),
        ([np.nan, 0.5, 3], "[0]", "nan"),
        ([3, 0.5, 0.25], "[2]", "0.25"),
        ([3, 0.5, 2**24 + 2], "[2]", "16777218.0"),
    ],
)
def test_a_value_that_is_no_id_of_its_column_is_found(row: list[float], place: str, found: str) -> None:
    wrong = wrong_id(MATRIX, np.array([[0, 0.5, 7], row]))
    assert wrong is not None
    assert (wrong.place, wrong.found) == (place, found)


def test_ids_up_to_the_last_row_and_up_to_what_the_dtype_tells_apart_are_fine() -> None:
    assert wrong_id(MATRIX, np.array([[19, -7.25, 2**24]])) is None
    assert wrong_id(MATRIX, np.zeros((0, 3), np.float32)) is None


def test_an_input_that_is_ids_throughout_is_checked_throughout() -> None:
    history = InputSpec(name="h", dtype="float32", shape=("rows", "length"), role="request", rows_of_table=9)
    assert wrong_id(history, np.array([[1.0, 8.0]], np.float32)) is None
    expected = WrongId("", "indices 0 to 8 (rows of its table)", "9.0")
    assert wrong_id(history, np.array([[1.0, 9.0]], np.float32)) == expected
    assert wrong_id(history, np.array([[1.0, 0.5]])) == WrongId(
        "", "a whole number up to 16777216, because it is an id (in float32)", "0.5"
    )


def test_ids_somewhere_unknown_are_not_checked() -> None:
    spec = InputSpec(name="x", dtype="float32", shape=("rows", 3), role="candidate", id_columns=(IdColumn(column=None),))
    assert wrong_id(spec, np.array([[0.5, -3.0, 1e30]])) is None


def test_columns_of_integers_have_a_table_each() -> None:
    tables = (IdColumn(column=0, rows_of_table=3), IdColumn(column=1, rows_of_table=100))
    fields = InputSpec(name="x", dtype="int64", shape=("rows", 2), role="candidate", id_columns=tables)
    assert wrong_id(fields, np.array([[2, 99], [0, 50]])) is None
    assert wrong_id(fields, np.array([[2, 99], [3, 50]])) == WrongId("[0]", "indices 0 to 2 (rows of its table)", "3")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([20, 0.5, 1], r"request 'a': column 'x'\[0\]: expected indices 0 to 19 \(rows of its table\), found 20"),
        ([3.5, 0.5, 1], r"request 'a': column 'x'\[0\]: expected a whole number up to 16777216"),
        ([3, 0.5, 16777217], r"request 'a': column 'x'\[2\]: expected a whole number up to 16777216, because it is an id"),
    ],
)
def test_requests_with_wrong_ids_are_refused_before_they_are_fed(row: list[float], message: str) -> None:
    signature = Signature(inputs=(MATRIX,), outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),))
    requests = Requests.of({"request_id": ["a"], "user_id": ["u"], "x": [[[1.0, 0.25, 2.0], row]]})
    with pytest.raises(InputError, match=message):
        list(requests.feeds(signature))
