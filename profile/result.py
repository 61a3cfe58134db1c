"""What a comparison found: latency per instance, quality per segment, and the verdict on each treatment."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..core.artifact import ModelRef
from ..core.estimate import Estimate
from ..core.machine import Machine
from ..core.requests import RequestsRef
from ..core.verdict import Verdict
from ..quality.result import Quality, QualityChange

Label = Literal["measured", "emulated", "extrapolated"]
Direction = Literal["slower", "faster", "unclear"]
QUANTILES: dict[str, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def labelled(label: Label, parts: int) -> str:
    """`measured`, `emulated`, or `extrapolated from 1 of 8 parts`."""
    return label if parts == 1 else f"{label} from 1 of {parts} parts"


class ModelLatency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Service time of one model on one instance: quantiles in milliseconds over `samples` requests, `n` of each estimate = rounds.

    `load_ms` is the time to load the model in a fresh process and `first_request_ms` the first answer, one value per launch;
    `memory_bytes` is the highest resident size of the process, one value per launch whose kernel tells it: empty means unknown.
    """

    model: ModelRef
    quantiles_ms: dict[str, Estimate]
    samples: int
    launches: int
    rounds: int
    load_ms: tuple[float, ...]
    first_request_ms: tuple[float, ...]
    memory_bytes: tuple[int, ...]


class LatencyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Treatment / control at one quantile: `ratio` with an interval over launches, `round_ratios` of every round in time order.

    `direction` says whether the treatment is surely slower or faster (each wrong 1 % of the time at most); `detectable` is the smallest
    margin, as a share, that these rounds would have let equal models keep to, None when no margin.
    """

    quantile: str
    ratio: Estimate
    round_ratios: tuple[float, ...]
    direction: Direction
    detectable: float | None


class InstanceLatency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All models on one instance, measured in the same interleaved rounds; `models[0]` is the control.

    `label` says how far the numbers may be trusted for that instance and `note` how it was imitated (if extrapolated, from one of `parts`,
    each with its share of a `rate_per_s`); `invalid` lists why the measurement
    cannot be trusted (empty when it can), `unsteady` why its absolute times cannot, though its ratios can. `measured_s` is how long
    requests were timed. With a `rate_per_s` latency counts from requests' arrival, without it is service time. `changes` maps a treatment's
    name to its change per quantile.
    """

    instance: str
    rate_per_s: float | None = None
    label: Label
    parts: int = 1
    note: str
    threads: int
    cpus: tuple[int, ...]
    candidates_per_request: Estimate
    invalid: tuple[str, ...]
    unsteady: tuple[str, ...] = ()
    measured_s: float
    models: tuple[ModelLatency, ...]
    changes: dict[str, tuple[LatencyChange, ...]]

    @property
    def how(self) -> str:
        """`measured`, `emulated`, or `extrapolated from 1 of 8 parts`."""
        return labelled(self.label, self.parts)

    @property
    def name(self) -> str:
        """`m5.large`, or `m5.large@200/s` in an open loop: as gates and raw samples call it."""
        return self.instance if self.rate_per_s is None else f"{self.instance}@{self.rate_per_s:g}/s"

    @property
    def what(self) -> str:
        """Which time its latencies are."""
        if self.rate_per_s is None:
            return "service time"
        part = "" if self.parts == 1 else f", of which a part gets {self.rate_per_s / self.parts:g}"
        return f"latency since arrival at {self.rate_per_s:g} requests/s{part}"


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One treatment against the control; `quality` is empty when the requests carry no labels, `verdict` None without a budget."""

    model: ModelRef
    quality: tuple[QualityChange, ...]
    verdict: Verdict | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything `profile compare` found, ready to be written, judged, or rendered.

    `samples_sha256` is of the `samples.parquet` written beside it, None when nothing was written.
    """

    schema_version: Literal[1] = 1
    kind: Literal["comparison"] = "comparison"
    control: ModelRef
    candidates: tuple[Candidate, ...]
    requests: RequestsRef
    instances: tuple[InstanceLatency, ...]
    quality: tuple[Quality, ...]
    budget: str | None
    machine: Machine
    tools: dict[str, str]
    seed: int
    started_at: str
    seconds: float
    command: str
    notes: tuple[str, ...] = ()
    samples_sha256: str | None = None
