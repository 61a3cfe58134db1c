"""What a cross-check with MLPerf LoadGen found."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ..provenance import Provenance

Answer = Literal["agree", "differ", "unclear"]
PERCENTILES: dict[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


class PercentileCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One percentile in milliseconds as either tool measured it, and LoadGen's, without its callback, over ours; `n` counts rounds.

    `p_value` is of "both tools measure the same", corrected for all percentiles of the scenario.
    """

    percentile: str
    loadgen_ms: Estimate
    ours_ms: Estimate
    ratio: Estimate
    p_value: float
    answer: Answer


class LoadgenVerdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """LoadGen's own words on one longer run that is not part of the comparison.

    `early_stopping_ms` is what LoadGen is 99 % sure the target percentile is at most, None where it does not say; `percentiles_ms` are from
    its log. `reasons` says what was not satisfied.
    """

    result: Literal["VALID", "INVALID"]
    reasons: tuple[str, ...]
    queries: int
    target: str
    target_ms: float
    early_stopping: str
    early_stopping_ms: float | None
    percentiles_ms: dict[str, float]


class ScenarioCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both tools in one of LoadGen's scenarios; `rate_per_s` is None where requests are asked one after another.

    `callback_ms` is the median time that LoadGen's own latency has on top of the model and of waiting: calling Python and being told.
    `late_ms` is how late each tool began a request that was due while nothing else ran, at the median and at p99, None in SingleStream.
    """

    scenario: Literal["SingleStream", "Server"]
    ours: str
    rate_per_s: float | None
    requests: int
    rounds: int
    launches: int
    callback_ms: float
    late_ms: dict[str, dict[str, float]] | None
    percentiles: tuple[PercentileCheck, ...]
    verdict: LoadgenVerdict


class CrossCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One session, measured by liftgate and by MLPerf LoadGen in alternating rounds.

    `rule` says when percentiles agree and how often equal ones would be said to differ. `invalid` lists why nothing here can be trusted
    (empty when it can), `unsteady` why absolute times cannot, though what was measured in alternation can be compared.
    """

    schema_version: Literal[1] = 1
    kind: Literal["cross_check"] = "cross_check"
    model: ModelRef
    provenance: Provenance
    loadgen_version: str
    rule: str
    scenarios: tuple[ScenarioCheck, ...]
    invalid: tuple[str, ...]
    unsteady: tuple[str, ...]
