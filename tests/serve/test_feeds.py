from __future__ import annotations

import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.core.signature import InputSpec, Layout, OutputSpec, Signature
from liftgate.serve.feeds import feeds_for, merge_inputs


def signature(layout: Layout, dtype: str = "int64") -> Signature:
    return Signature(
        inputs=(
            InputSpec(name="user", dtype=dtype, shape=("rows" if layout == "rows" else 1,), role="request"),
            InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate", rows_of_table=100),
        ),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
        layout=layout,
    )


ITEMS = np.array([5, 6, 7])


@pytest.mark.parametrize("sent", [[3], [3, 3, 3]])
@pytest.mark.parametrize(("layout", "fed"), [("rows", [3, 3, 3]), ("request", [3])])
def test_either_layout_is_accepted_by_either_model(sent: list[int], layout: Layout, fed: list[int]) -> None:
    feeds = feeds_for({"user": np.array(sent), "item": ITEMS}, signature(layout))
    assert feeds["user"].tolist() == fed
    assert feeds["item"].tolist() == [5, 6, 7]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"item": ITEMS}, "input 'user': expected a int64 tensor, found nothing"),
        ({"user": np.array([1, 2]), "item": ITEMS}, "expected 1 row, or one per candidate (3), found 2"),
        ({"user": np.array([1]), "item": ITEMS.astype(np.int32)}, "input 'item': expected int64, found int32"),
        ({"user": np.array([1]), "item": ITEMS.reshape(3, 1)}, "input 'item'"),
        ({"user": np.array([1]), "item": np.array([1, 100])}, "expected indices 0 to 99 (rows of its table), found 100"),
        ({"user": np.array([1]), "item": np.array([1, -1])}, "expected indices 0 to 99 (rows of its table), found -1"),
        ({"user": np.array([1]), "item": np.array([], dtype=np.int64)}, "expected at least one candidate"),
        ({"user": np.array([1])}, "expected the inputs user, item"),
    ],
)
def test_a_request_the_model_cannot_take_is_refused(tensors: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError) as caught:
        feeds_for(tensors, signature("rows"))
    assert message in str(caught.value)


def test_rows_that_differ_cannot_be_one_request_input() -> None:
    with pytest.raises(InputError, match="rows that differ"):
        feeds_for({"user": np.array([1, 2, 3]), "item": ITEMS}, signature("request"))


def test_arms_that_disagree_about_an_input_are_refused() -> None:
    assert list(merge_inputs({"a": signature("rows"), "b": signature("request")})) == ["user", "item"]
    with pytest.raises(InputError, match="arm 'b': input 'user': expected int64 of rank 1, role request, as in arm 'a', found float32"):
        merge_inputs({"a": signature("rows"), "b": signature("rows", dtype="float32")})
