"""From a measured run to the numbers people read: quantiles, changes and launches per model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core.estimate import Estimate
from .measure import Run, Subject
from .result import QUANTILES, InstanceLatency, LatencyChange, ModelLatency
from .statistics import paired_ratio, quantile_estimate, t_interval


def summarize(run: Run, subjects: Sequence[Subject]) -> InstanceLatency:
    """Latency of every subject of `run`, `subjects[0]` being the control."""
    control = run.samples.of(0)
    changes = {}
    for number, subject in enumerate(subjects[1:], start=1):
        paired = {name: paired_ratio(control, run.samples.of(number), p) for name, p in QUANTILES.items()}
        changes[subject.ref.name] = tuple(
            LatencyChange(quantile=name, ratio=found.estimate(), round_ratios=tuple(math.exp(d) for d in found.rounds))
            for name, found in paired.items()
        )
    return InstanceLatency(
        instance=run.placement.instance.name,
        label=run.placement.label,
        note=run.placement.note,
        threads=run.placement.threads,
        cpus=run.placement.cpus,
        candidates_per_request=_candidates(run.candidates),
        invalid=run.invalid,
        models=tuple(_model(run, number, subject) for number, subject in enumerate(subjects)),
        changes=changes,
    )


def _model(run: Run, number: int, subject: Subject) -> ModelLatency:
    launches = run.samples.of(number)
    told = [launch for launch in run.launches if launch.model == number]
    return ModelLatency(
        model=subject.ref,
        quantiles_ms={name: quantile_estimate(launches, p) for name, p in QUANTILES.items()},
        samples=sum(len(block) for blocks in launches for block in blocks),
        launches=len(launches),
        rounds=sum(len(blocks) for blocks in launches),
        load_ms=tuple(launch.ready.load_ns / 1e6 for launch in told),
        first_request_ms=tuple(launch.ready.first_request_ns / 1e6 for launch in told),
        memory_bytes=tuple(launch.ended.memory_bytes for launch in told if launch.ended.memory_bytes is not None),
    )


def _candidates(counts: Sequence[int]) -> Estimate:
    """Mean candidates per request; `n` counts requests."""
    if not counts:
        return Estimate(value=None, low=None, high=None, n=0)
    value, low, high = t_interval(np.asarray(counts, dtype=np.float64), 0.95)
    return Estimate(value=value, low=low, high=high, n=len(counts))
