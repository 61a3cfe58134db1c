"""From a measured run to the numbers people read: quantiles, changes and launches per model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..core.estimate import Estimate
from .launch import Subject
from .measure import Run
from .result import QUANTILES, InstanceLatency, LatencyChange, ModelLatency
from .sequential import PairedRounds, detectable, direction, paired_rounds, planned_looks
from .statistics import quantile_estimate, t_interval

# The usual alpha of gates, for which `detectable` is told.
ALPHA = 0.05


def summarize(run: Run, subjects: Sequence[Subject]) -> InstanceLatency:
    """Latency of every subject of `run`, `subjects[0]` being the control."""
    control = run.samples.of(0)
    changes = {}
    for number, subject in enumerate(subjects[1:], start=1):
        treatment = run.samples.of(number)
        changes[subject.ref.name] = tuple(
            _change(name, paired_rounds(control, treatment, p), looked=len(planned_looks(run.planned))) for name, p in QUANTILES.items()
        )
    return InstanceLatency(
        instance=run.placement.instance.name,
        rate_per_s=run.rate_per_s,
        label=run.placement.label,
        parts=run.placement.parts,
        note=run.placement.note,
        threads=run.placement.threads,
        cpus=run.placement.cpus,
        candidates_per_request=_candidates(run.candidates),
        invalid=run.invalid,
        unsteady=run.unsteady,
        measured_s=round(run.measured_s, 3),
        models=tuple(_model(run, number, subject) for number, subject in enumerate(subjects)),
        changes=changes,
    )


def _change(quantile: str, paired: PairedRounds, *, looked: int) -> LatencyChange:
    return LatencyChange(
        quantile=quantile,
        ratio=paired.estimate(),
        round_ratios=tuple(math.exp(d) for d in paired.values),
        direction=direction(paired, looks=looked),
        detectable=detectable(paired, ALPHA),
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
