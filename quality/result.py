"""What an evaluation found: ranking quality per metric and segment, and how two models differ."""

from __future__ import annotations

import msgspec

from ..core.artifact import ModelRef
from ..core.estimate import Estimate
from ..core.requests import RequestsRef


class MetricValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric on one segment (`all` for everyone): mean over users, interval by bootstrap over users.

    `undefined_requests` counts the requests the metric cannot judge (no relevant candidate, say); they are left out, never scored as 0.
    """

    metric: str
    segment: str
    users: int
    requests: int
    undefined_requests: int
    estimate: Estimate


class Quality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ranking quality of one model."""

    model: ModelRef
    requests: RequestsRef
    metrics: tuple[MetricValue, ...]
    seed: int


class QualityChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same users under control and treatment: `ratio` is treatment / control (1.0 = kept), paired over users."""

    metric: str
    segment: str
    users: int
    control: Estimate
    treatment: Estimate
    difference: Estimate
    ratio: Estimate
