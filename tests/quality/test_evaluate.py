from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from liftgate.core.artifact import ModelRef
from liftgate.core.errors import InputError
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.quality.evaluate import evaluate, evaluate_users, pair

SIGNATURE = Signature(
    inputs=(InputSpec(name="x", dtype="float32", shape=("rows",), role="candidate"),),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


class Affine:
    """A session that scores `slope * x`."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    @property
    def ref(self) -> ModelRef:
        return ModelRef(name=f"times {self.slope:g}", digest="0" * 64, runtime="test", size_bytes=1)

    @property
    def signature(self) -> Signature:
        return SIGNATURE

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"score": self.slope * feeds["x"]}


def requests(**more: list[object]) -> Requests:
    data: dict[str, list[object]] = {
        "request_id": ["r1", "r2", "r3"],
        "user_id": ["a", "a", "b"],
        "segment": ["power", "power", "casual"],
        "x": [[3.0, 2.0, 1.0], [1.0, 2.0], [1.0, 2.0]],
        "label": [[1, 0, 0], [0, 1], [1, 0]],
    }
    return Requests.of({k: v for k, v in (data | more).items() if v})


def test_quality_is_reported_for_everyone_and_for_each_segment() -> None:
    found = evaluate(Affine(1.0), requests(), metrics=("ndcg@1", "auc"))
    values = {(m.metric, m.segment): (m.estimate.value, m.users) for m in found.metrics}
    # User a is ranked perfectly within each request, pooled he loses one of 2 x 3 pairs half (2 against 2); b is ranked upside down.
    assert values == {
        ("ndcg@1", "all"): (0.5, 2),
        ("ndcg@1", "casual"): (0.0, 1),
        ("ndcg@1", "power"): (1.0, 1),
        ("auc", "all"): (pytest.approx(5.5 / 12), 2),
        ("auc", "casual"): (0.0, 1),
        ("auc", "power"): (pytest.approx(5.5 / 6), 1),
    }


def test_the_same_seed_gives_the_same_interval() -> None:
    assert evaluate(Affine(1.0), requests(), seed=3) == evaluate(Affine(1.0), requests(), seed=3)


def test_two_models_are_paired_user_by_user() -> None:
    a, b = (evaluate_users(Affine(s), requests(), metrics=("auc",)) for s in (1.0, -1.0))
    changes = {p.segment: p.change() for p in pair(a, b)}
    assert changes["casual"].difference.value == 1.0
    assert changes["power"].difference.value == pytest.approx(-5 / 6)
    assert changes["all"].users == 2
    assert changes["casual"].ratio.value is None


def test_requests_without_labels_are_refused() -> None:
    with pytest.raises(InputError, match="expected a column 'label'"):
        evaluate(Affine(1.0), requests(label=[]))


def test_nan_scores_are_an_error_that_names_the_request() -> None:
    with pytest.raises(InputError, match=r"request 'r1'.*expected finite scores, found 3 of 3"):
        evaluate(Affine(float("nan")), requests())


def test_labels_of_another_length_are_an_error_that_names_the_request() -> None:
    with pytest.raises(InputError, match=r"request 'r2'.*expected 2 labels"):
        evaluate(Affine(1.0), requests(label=[[1, 0, 0], [0, 1, 0], [1, 0]]))


def test_requests_are_read_from_a_file(tmp_path: Path) -> None:
    requests().write(tmp_path / "requests.parquet")
    found = evaluate(Affine(1.0), tmp_path / "requests.parquet", metrics=("auc",))
    assert found.requests.requests == 3
    assert found.metrics[0].estimate.n == 2
