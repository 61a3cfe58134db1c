"""Where, when and on what numbers were made, as every load result says it."""

from __future__ import annotations

import time

from ...core.machine import this_machine, tool_versions
from ..setting import Setting
from .result import Provenance, distribution


def provenance_of(at: Setting, *, servers: int = 1) -> Provenance:
    """What results say about where, with what and for how long something was measured."""
    return Provenance(
        instance=at.placement.instance.name,
        label=at.placement.label,
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
