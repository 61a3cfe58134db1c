from __future__ import annotations

import hashlib

import msgspec
import pytest
from liftgate.experiment.assignment import assign, bucket_of
from liftgate.experiment.config import Experiment, experiment_from_split
from scipy import stats

UNITS = [f"user-{i}" for i in range(20_000)]


def split(weights: str, *, coverage: float = 1.0, salt: str = "") -> Experiment:
    return msgspec.structs.replace(experiment_from_split(("a", "b"), weights, name="x"), coverage=coverage, salt=salt)


def test_the_bucket_is_the_sha256_of_salt_and_unit() -> None:
    assert bucket_of("salt", "u1") == int(hashlib.sha256(b"salt.u1").hexdigest(), 16) % 10_000


def test_the_same_unit_is_always_in_the_same_arm() -> None:
    assert assign(split("50:50"), "u1") == assign(split("50:50"), "u1")


@pytest.mark.parametrize("weights", ["50:50", "90:10", "1:2"])
def test_arms_fill_according_to_their_weights(weights: str) -> None:
    experiment = split(weights)
    arms = [assign(experiment, unit).arm for unit in UNITS]
    expected = [experiment.shares[arm] * len(UNITS) for arm in ("a", "b")]
    assert stats.chisquare([arms.count("a"), arms.count("b")], expected).pvalue > 0.001


def test_a_coverage_ramp_moves_no_enrolled_unit() -> None:
    before = None
    for coverage in (0.0, 0.01, 0.1, 0.5, 1.0):
        found = {unit: assign(split("50:50", coverage=coverage), unit) for unit in UNITS}
        enrolled = {unit: a.arm for unit, a in found.items() if a.enrolled}
        assert len(enrolled) == pytest.approx(coverage * len(UNITS), rel=0.2)
        assert before is None or before.items() <= enrolled.items()
        before = enrolled


def test_a_unit_that_is_not_enrolled_gets_the_control() -> None:
    outside = [a for a in (assign(split("50:50", coverage=0.3), unit) for unit in UNITS) if not a.enrolled]
    assert {a.arm for a in outside} == {"a"}


def test_coverage_zero_sends_everybody_to_the_control() -> None:
    assert {assign(split("1:99", coverage=0.0), unit).arm for unit in UNITS[:1000]} == {"a"}


def test_two_salts_split_independently() -> None:
    one, two = split("50:50", salt="one"), split("50:50", salt="two")
    both = sum(assign(one, u).arm == "b" and assign(two, u).arm == "b" for u in UNITS)
    # Four standard deviations of a binomial with probability 1/4.
    assert abs(both / len(UNITS) - 0.25) < 4 * (0.25 * 0.75 / len(UNITS)) ** 0.5
