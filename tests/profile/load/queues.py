"""Simulated load for tests: M/D/1 by Lindley's recursion, and results made of it."""

from __future__ import annotations

import numpy as np
from liftgate.core.artifact import ModelRef
from liftgate.core.machine import this_machine
from liftgate.core.requests import RequestsRef
from liftgate.profile.arrivals import Poisson, ref_of
from liftgate.profile.load.limits import LatencyLimit
from liftgate.profile.load.load import LoadRun, summary
from liftgate.profile.load.result import Load
from liftgate.profile.load.trial import Trial
from liftgate.profile.provenance import Provenance, distribution

MS = 1_000_000


def trial_of(due_ns: list[int], latency_ns: list[int], service_ns: list[int], lag_ns: list[int] | None = None) -> Trial:
    lag = [0] * len(latency_ns) if lag_ns is None else lag_ns
    due, latency, service, late = (np.array(ns, dtype=np.int64) for ns in (due_ns, latency_ns, service_ns, lag))
    return Trial(requests=np.zeros(len(due), dtype=np.int64), due_ns=due, latency_ns=latency, service_ns=service, lag_ns=late, wait=None)


def simulated(rate_per_s: float, seed: int, requests: int = 3000) -> Trial:
    """Poisson arrivals at one server that takes a millisecond each: W[i+1] = max(0, W[i] + S - gap)."""
    due = np.cumsum(np.random.default_rng(seed).exponential(1e9 / rate_per_s, requests)).astype(np.int64)
    waits = [0]
    for gap in np.diff(due).tolist():
        waits.append(max(0, waits[-1] + MS - gap))
    return trial_of(due.tolist(), [wait + MS for wait in waits], [MS] * requests)


def provenance() -> Provenance:
    return Provenance(
        instance="m5.large",
        label="emulated",
        parts=1,
        note="one core stands for another",
        threads=1,
        servers=1,
        cpus=(0,),
        requests=RequestsRef(source="r.parquet", sha256="0" * 64, requests=10, users=5, generated=False),
        candidates_per_request=distribution([3, 30, 30, 120]),
        machine=this_machine(),
        tools={"python": "3.11"},
        seed=7,
        started_at="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )


def loaded(trials: tuple[Trial, ...], *, invalid: tuple[str, ...] = ()) -> LoadRun:
    """One model's trials as `load` returns them."""
    ref = ModelRef(name="v1.0", digest="0" * 64, runtime="onnxruntime", size_bytes=1)
    limits = [LatencyLimit(quantile="p95", p=0.95, limit_ms=4.5)]
    result = Load(
        provenance=provenance(),
        arrivals=ref_of(Poisson(rate_per_s=500)),
        models=(summary(ref, trials, servers=1, limits=limits, trusted=not invalid),),
        invalid=invalid,
    )
    return LoadRun(result=result, request_ids=("r0",), trials=(trials,))
