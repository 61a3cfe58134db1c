"""Where, when and on what numbers were made, as results of load, sweep, cold starts and cross-checks say it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import numpy as np

from ..core.machine import Machine, this_machine, tool_versions
from ..core.requests import RequestsRef
from .result import Label, labelled
from .setting import Setting


class Distribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How something is spread over `n` requests or processes."""

    min: float
    median: float
    p95: float
    max: float
    n: int


def distribution(values: Sequence[float]) -> Distribution:
    """Of at least one value."""
    array = np.asarray(values, dtype=np.float64)
    low, median, p95, high = (float(v) for v in np.quantile(array, [0, 0.5, 0.95, 1]))
    return Distribution(min=low, median=median, p95=p95, max=high, n=len(array))


class Provenance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how numbers were made: `label` says whether the instance was there, imitated, or extrapolated from one of `parts`.

    `note` says how. Rates of loads and sweeps are those of the whole instance; those of batches and cross-checks are the part's.
    """

    instance: str
    label: Label
    parts: int
    note: str
    threads: int
    servers: int
    cpus: tuple[int, ...]
    requests: RequestsRef
    candidates_per_request: Distribution
    machine: Machine
    tools: dict[str, str]
    seed: int
    started_at: str
    seconds: float

    @property
    def how(self) -> str:
        """`measured`, `emulated`, or `extrapolated from 1 of 8 parts`."""
        return labelled(self.label, self.parts)


def provenance_of(at: Setting, *, servers: int = 1) -> Provenance:
    """What results say about where, with what and for how long something was measured."""
    return Provenance(
        instance=at.placement.instance.name,
        label=at.placement.label,
        parts=at.placement.parts,
        note=at.placement.note,
        threads=at.placement.threads,
        servers=servers,
        cpus=at.placement.cpus,
        requests=at.asked.ref,
        candidates_per_request=distribution(at.pool.candidates(at.subjects[0].signature)),
        machine=this_machine(),
        tools=tool_versions(),
        seed=at.seed,
        started_at=at.started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - at.begun, 3),
    )
