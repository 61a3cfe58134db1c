from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Role, Signature


def spec(name: str, role: Role, *more: int | str, dtype: str = "int64") -> InputSpec:
    return InputSpec(name=name, dtype=dtype, shape=("rows", *more), role=role)


OUT = (OutputSpec(name="score", dtype="float32", shape=("rows",)),)
RANKER = Signature(inputs=(spec("user", "request"), spec("history", "request", "length"), spec("item", "candidate")), outputs=OUT)
DATA: dict[str, list[object]] = {
    "request_id": ["a", "b"],
    "user_id": [1, 2],
    "user": [1, 2],
    "history": [[7, 8, 9], [5]],
    "item": [[10, 11], [12, 13, 14]],
    "label": [[0, 1], [1, 0, 0]],
}


def test_request_inputs_are_repeated_for_every_candidate() -> None:
    first, second = Requests.of(DATA).feeds(RANKER)
    assert first["user"].tolist() == [1, 1]
    assert first["history"].tolist() == [[7, 8, 9], [7, 8, 9]]
    assert second["item"].tolist() == [12, 13, 14]
    assert second["history"].tolist() == [[5], [5], [5]]


def test_the_request_layout_gives_request_inputs_once() -> None:
    signature = Signature(inputs=RANKER.inputs, outputs=OUT, layout="request")
    first = next(iter(Requests.of(DATA).feeds(signature)))
    assert first["user"].tolist() == [1]
    assert first["history"].shape == (1, 3)
    assert first["item"].tolist() == [10, 11]


def test_roles_follow_from_how_deep_a_column_nests() -> None:
    assert Requests.of(DATA).roles({"user": 1, "history": 2, "item": 1}) == {"user": "request", "history": "request", "item": "candidate"}


def test_a_file_is_read_back_as_it_was_written_by_pandas(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    pd.DataFrame(DATA).to_parquet(path)
    requests = Requests.read(path)
    assert (len(requests), requests.ref.users, requests.ref.generated) == (2, 2, False)
    assert [f["item"].tolist() for f in requests.feeds(RANKER)] == [[10, 11], [12, 13, 14]]
    labels = requests.labels
    assert labels is not None
    assert [v.tolist() for v in labels] == [[0, 1], [1, 0, 0]]


def test_floats_are_cast_to_what_the_signature_says() -> None:
    signature = Signature(inputs=(spec("x", "candidate", 2, dtype="float32"),), outputs=OUT)
    requests = Requests.of({"request_id": ["a"], "user_id": ["u"], "x": [[[0.5, 1.5], [2.5, 3.5]]]})
    fed = next(iter(requests.feeds(signature)))["x"]
    assert fed.dtype == np.float32
    assert fed.tolist() == [[0.5, 1.5], [2.5, 3.5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item": [[10, 11, 12], [12, 13, 14]]}, r"request 'a': column 'label': expected 3 labels, one per candidate, found 2"),
        ({"label": [[0, float("nan")], [1, 0, 0]]}, r"column 'label': expected finite numbers, found NaN"),
        ({"label": [0, 1]}, r"column 'label': expected a list with one entry per candidate"),
        ({"request_id": ["a", "a"]}, r"expected unique ids, found repeated ones"),
        ({"user_id": [1, None]}, r"column 'user_id': expected a value in every row"),
        ({"label": [["a", "b"], ["a", "b", "c"]]}, r"column 'label': expected a list of numbers, found a list of string"),
        ({"user": ["1", "2"]}, r"request 'a': column 'user': expected int64, found text"),
        ({"segment": ["power", None]}, r"column 'segment': expected a segment in every row"),
        ({"segment": ["power", "all"]}, r"column 'segment': expected names other than 'all'"),
        ({"history": [[7.5, 8, 9], [5]]}, r"request 'a': column 'history': expected int64, found float64"),
        ({"history": [[7, None, 9], [5]]}, r"column 'history': expected int64 values, found missing values"),
        (
            {"user": [[1, 1], [2, 2, 3]]},
            r"request 'b': column 'user': expected one value per request .*found candidates with different values",
        ),
    ],
)
def test_bad_columns_are_named(change: dict[str, list[object] | None], message: str) -> None:
    data = {k: v for k, v in {**DATA, **change}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        list(Requests.of(data).feeds(RANKER))


def test_a_column_that_the_signature_lacks_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"unknown column 'histroy'; did you mean 'history'\?"):
        list(Requests.of({**DATA, "histroy": [1, 2]}).feeds(RANKER))


def test_restricting_leaves_out_what_another_model_needs() -> None:
    wider = Requests.of({**DATA, "age": [30, 40]})
    wider.check_columns(["user", "history", "item", "age"])
    assert [f["item"].tolist() for f in wider.restrict(RANKER).feeds(RANKER)] == [[10, 11], [12, 13, 14]]


def test_an_input_without_a_column_is_an_error() -> None:
    data = {k: v for k, v in DATA.items() if k != "history"}
    with pytest.raises(UnknownName, match="unknown column 'history'"):
        list(Requests.of(data).feeds(RANKER))


def test_a_file_that_is_not_parquet_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "requests.parquet"
    with pytest.raises(InputError, match="found nothing"):
        Requests.read(path)
    path.write_text("user,item\n1,2\n")
    with pytest.raises(InputError, match="is not a readable Parquet file"):
        Requests.read(path)


def test_integers_that_do_not_fit_are_refused_not_wrapped() -> None:
    signature = Signature(inputs=(spec("x", "candidate", dtype="uint8"),), outputs=OUT)
    with pytest.raises(InputError, match=r"request 'a': column 'x': expected values that fit uint8, found 300"):
        list(Requests.of({"request_id": ["a"], "user_id": ["u"], "x": [[1, 300]]}).feeds(signature))


@pytest.mark.parametrize("bad", [-1, 20])
def test_an_index_outside_its_table_is_refused(bad: int) -> None:
    item = InputSpec(name="x", dtype="int64", shape=("rows",), role="candidate", rows_of_table=20)
    requests = Requests.of({"request_id": ["a"], "user_id": ["u"], "x": [[0, bad, 19]]})
    with pytest.raises(InputError, match=rf"column 'x': expected indices 0 to 19 \(rows of its table\), found {bad}"):
        list(requests.feeds(Signature(inputs=(item,), outputs=OUT)))


def test_a_folder_is_not_a_requests_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder"):
        Requests.read(tmp_path)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(InputError, match="expected at least one request"):
        Requests.of({"request_id": [], "user_id": []})


def test_a_request_input_may_be_written_once_per_candidate() -> None:
    repeated = Requests.of({**DATA, "user": [[1, 1], [2, 2, 2]]})
    assert [f["user"].tolist() for f in repeated.feeds(RANKER)] == [[1, 1], [2, 2, 2]]
    request_layout = msgspec.structs.replace(RANKER, layout="request")
    assert [f["user"].tolist() for f in repeated.feeds(request_layout)] == [[1], [2]]
    assert repeated.never_varying(["user", "item"], RANKER) == (["user"], 2)
