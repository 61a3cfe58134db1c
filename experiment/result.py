"""What an A/B test found: CTR per arm, the sample-ratio check, the effect, and what is still needed."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..core.estimate import Estimate
from ..core.verdict import Outcome, Verdict


class ArmResult(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm: `ctr` is clicks / impressions with an interval clustered by user (`n` = users)."""

    arm: str
    model: str
    users: int
    exposures: int
    impressions: int
    clicks: int
    ctr: Estimate
    latency_p50_ms: float | None
    latency_p95_ms: float | None


class SampleRatio(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chi-square check that users fell into the arms as configured; `ok` is False below `threshold`."""

    expected: dict[str, float]
    observed: dict[str, int]
    p_value: float | None
    threshold: float
    ok: bool


class Effect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Treatment against control on one segment (`all` for everyone): absolute and relative CTR difference by the delta method.

    `users_needed` is the number of users in the treatment arm, at the configured split, at which the experiment's smallest interesting
    effect would be seen with its power, None when the data cannot say;
    `design_effect` is the variance over that of independent impressions.
    """

    treatment: str
    segment: str
    absolute: Estimate
    relative: Estimate
    p_value: float | None
    design_effect: float | None
    users_needed: int | None
    outcome: Outcome
    reason: str


class Analysis(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `experiment analyse` found, ready to be written or rendered."""

    schema_version: Literal[1] = 1
    kind: Literal["analysis"] = "analysis"
    experiment: str
    salt: str
    metric: str
    control: str
    arms: tuple[ArmResult, ...]
    sample_ratio: SampleRatio
    effects: tuple[Effect, ...]
    segments: tuple[Effect, ...]
    verdict: Verdict
    first_exposure_at: str | None
    last_exposure_at: str | None
    ignored: dict[str, int]
    command: str
    notes: tuple[str, ...] = ()
