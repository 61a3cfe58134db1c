"""What load, sweep and cold start found; every number carries the label of the instance that its result names."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ..arrivals import ArrivalsRef
from ..provenance import Provenance
from ..result import Label
from .limits import LatencyLimit

Answer = Literal["meets", "misses", "unclear", "invalid"]


class LimitAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether one latency limit was kept, by an exact binomial test at the effective sample size; "invalid" when nothing can be said."""

    limit: LatencyLimit
    answer: Answer
    found_ms: Estimate


class ModelLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model under open-loop load; latency counts from when a request was due, so it holds queueing and `lag` as well as service.

    Quantiles are in milliseconds and their `n` counts batches; other estimates count processes. `lag_ms` says how late the server itself
    was. `overload` says why there is no steady state (then quantiles only grow with the time they are measured for), `unsettled` why it may
    not have been reached (then quantiles are too low, and have no bounds); None when neither is so.
    """

    model: ModelRef
    latency_ms: dict[str, Estimate]
    service_ms: dict[str, Estimate]
    lag_ms: dict[str, float]
    offered_per_s: float
    achieved_per_s: Estimate
    utilisation: Estimate
    requests: int
    unanswered: int
    launches: int
    overload: str | None
    unsettled: str | None
    limits: tuple[LimitAnswer, ...]
    invalid: tuple[str, ...]


class Load(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `profile load` found; `invalid` lists why none of it can be trusted (empty when it can)."""

    schema_version: Literal[1] = 1
    kind: Literal["load"] = "load"
    provenance: Provenance
    arrivals: ArrivalsRef
    models: tuple[ModelLoad, ...]
    invalid: tuple[str, ...]


class RatePoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One trial of a sweep: what a rate did to the limited quantiles (ms, in the order of the sweep's limits)."""

    rate_per_s: float
    seed: int
    found_ms: tuple[Estimate, ...]
    utilisation: float
    requests: int
    lag_p99_ms: float
    overload: str | None
    unsettled: str | None
    answer: Answer


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """US dollars per million requests at the rate that meets the limits: `high` at the highest rate seen to meet them, `low` at the lowest
    seen to miss them, None without one."""

    low: float | None
    high: float
    usd_per_hour: float
    price: str
    label: Label


class ModelSweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rates between which a model stops meeting its limits.

    `meets_per_s` is the highest rate that was seen to meet them (None: no rate was), `misses_per_s` the lowest seen to miss them.
    `capacity_per_s` is servers / mean service time: beyond it the queue has no end. `cost` is None without a price or a rate.
    """

    model: ModelRef
    meets_per_s: float | None
    misses_per_s: float | None
    confirmed: bool
    capacity_per_s: float
    points: tuple[RatePoint, ...]
    cost: Cost | None
    why: str


class Sweep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `profile sweep` found; `models[0]` is what the others are compared with."""

    schema_version: Literal[1] = 1
    kind: Literal["sweep"] = "sweep"
    provenance: Provenance
    arrivals: ArrivalsRef
    limits: tuple[LatencyLimit, ...]
    models: tuple[ModelSweep, ...]
    invalid: tuple[str, ...]


class ColdLaunch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fresh process: importing the runtime, loading the model, its first answer, and everything until answers were steady.

    `until_steady_ms` is loading and the `requests_until_steady` requests; `memory_bytes` the highest resident size, `cached_share` how much
    of the model's files was in the page cache before the start. None where the kernel does not tell.
    """

    import_ms: float
    load_ms: float
    first_request_ms: float
    requests_until_steady: int
    until_steady_ms: float
    steady_ms: float
    memory_bytes: int | None
    swapped_bytes: int | None
    cached_share: float | None


class ModelColdStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Medians over fresh processes, `n` of each; memory and swap are the highest of them."""

    model: ModelRef
    import_ms: Estimate
    load_ms: Estimate
    first_request_ms: Estimate
    requests_until_steady: Estimate
    until_steady_ms: Estimate
    steady_ms: Estimate
    memory_bytes: int | None
    swapped_bytes: int | None
    launches: tuple[ColdLaunch, ...]


class ColdStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `profile coldstart` found."""

    schema_version: Literal[1] = 1
    kind: Literal["coldstart"] = "coldstart"
    provenance: Provenance
    page_cache: Literal["cold", "as it was"]
    models: tuple[ModelColdStart, ...]
    invalid: tuple[str, ...]


class BatchSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Calls that hold `requests_per_call` requests: time per call (`n` counts rounds), requests answered per second (`n` counts processes).

    `gain` is the ratio of requests per second to those of the first size, paired by process.
    """

    requests_per_call: int
    call_ms: dict[str, Estimate]
    requests_per_s: Estimate
    gain: Estimate
    calls: int


class Batches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `profile run --batch` found: one model, several sizes, closed loop."""

    schema_version: Literal[1] = 1
    kind: Literal["batches"] = "batches"
    provenance: Provenance
    model: ModelRef
    sizes: tuple[BatchSize, ...]
    invalid: tuple[str, ...]
