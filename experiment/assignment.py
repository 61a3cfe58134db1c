"""Who is enrolled and in which arm: a pure function of experiment and unit, so any number of routers agree without talking."""

from __future__ import annotations

import hashlib

import msgspec

from .config import BUCKETS, Experiment


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a unit belongs. `bucket` (0 to 9,999) decided the arm, an independent one the enrolment.

    A unit that is not enrolled has the control as its arm and is not analysed.
    """

    unit: str
    bucket: int
    enrolled: bool
    arm: str


def bucket_of(salt: str, unit: str) -> int:
    """sha256 of `salt + "." + unit` as one number, modulo 10,000."""
    return int.from_bytes(hashlib.sha256(f"{salt}.{unit}".encode()).digest()) % BUCKETS


def assign(experiment: Experiment, unit: str) -> Assignment:
    """Assign `unit`.

    Admission and arm are hashed with different salts: a unit is enrolled while its admission bucket lies below the coverage, and
    its arm does not depend on coverage at all. A ramp therefore only enrols new units and moves none (a ramp by weights would
    carry units from control to treatment in the middle of the experiment).
    """
    salt = experiment.effective_salt
    bucket = bucket_of(f"{salt}.arm", unit)
    enrolled = bucket_of(f"{salt}.admission", unit) < experiment.covered_buckets
    return Assignment(unit=unit, bucket=bucket, enrolled=enrolled, arm=_arm_at(experiment, bucket) if enrolled else experiment.control)


def _arm_at(experiment: Experiment, bucket: int) -> str:
    edge = 0
    for name, count in experiment.buckets.items():
        edge += count
        if bucket < edge:
            return name
    raise AssertionError("the arms share all buckets")
