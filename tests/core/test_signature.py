"""Signatures: what a request has to look like in either layout."""

from __future__ import annotations

import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.core.signature import InputSpec, OutputSpec, Signature

ONCE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request"),
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
    layout="request",
)


def test_in_layout_request_a_user_comes_once_for_all_candidates() -> None:
    ONCE.check({"user": np.zeros(1, np.int64), "item": np.zeros(5, np.int64)}, where="request")
    with pytest.raises(InputError, match=r"input 'user'.*with 1 = 1, found"):
        ONCE.check({"user": np.zeros(5, np.int64), "item": np.zeros(5, np.int64)}, where="request")
