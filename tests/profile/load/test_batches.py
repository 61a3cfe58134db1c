from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from liftgate.profile.load.batches import batches, parse_sizes
from liftgate.profile.load.result import Batches
from liftgate.profile.merge import check_mergeable, merged

MakeModel = Callable[..., ModelArtifact]
HISTORY = Signature(
    inputs=(InputSpec(name="history", dtype="int64", shape=("rows", "length"), role="request"),),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


def test_requests_of_one_call_are_joined_row_by_row() -> None:
    feeds = [{"item": np.arange(n) + 10 * n} for n in (1, 2, 3, 4, 5)]
    found = merged(feeds, 2)
    assert [one["item"].tolist() for one in found] == [[10, 20, 21], [30, 31, 32, 40, 41, 42, 43]]
    assert merged(feeds, 1) == feeds


def test_sizes_are_numbers_each_once() -> None:
    assert parse_sizes("1, 4,16,4") == (1, 4, 16)
    for text in ("", "0", "1,x", "2000", "-1", "1,,2"):
        with pytest.raises(InputError, match="--batch: expected numbers from 1 to 1024"):
            parse_sizes(text)


def test_layout_request_is_refused_with_the_reason() -> None:
    requests = Requests.of({"request_id": ["a"], "user_id": ["u"], "history": [[1, 2]]})
    with pytest.raises(InputError, match=r"v1\.0: --batch: expected a model in layout 'rows'.*found layout 'request'"):
        check_mergeable(msgspec.structs.replace(HISTORY, layout="request"), requests, "v1.0")


def test_histories_of_several_lengths_do_not_fit_one_call() -> None:
    requests = Requests.of({"request_id": ["a", "b"], "user_id": ["u", "v"], "history": [[1, 2], [1]]})
    with pytest.raises(InputError, match=r"input 'history': expected rows of one shape in all requests, found \[1\], \[2\]"):
        check_mergeable(HISTORY, requests, "v1.0")


def test_every_size_is_measured_in_turns(make_model: MakeModel, requests: Requests, store: Store) -> None:
    found = batches(make_model("v1.0"), (1, 4), requests=requests, seconds=0.2, launches=2, store=store)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Batches) == found
    assert [size.requests_per_call for size in found.sizes] == [1, 4]
    assert found.sizes[0].gain.value == 1.0
    for size in found.sizes:
        assert (size.requests_per_s.value or 0) > 0
        assert (size.call_ms["p50"].value or 0) > 0
