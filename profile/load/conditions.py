"""Where, when and on what numbers were made, as every load result says it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from ...core.machine import this_machine, tool_versions
from ...core.requests import Requests
from ..machines.instance import Placement
from ..measure import Subject
from .result import Conditions, distribution


def conditions_of(
    placement: Placement,
    *,
    servers: int,
    asked: Requests,
    pool: Requests,
    subjects: Sequence[Subject],
    seed: int,
    started_at: datetime,
    begun: float,
) -> Conditions:
    """`asked` is what the user gave, `pool` what was replayed of it; `begun` is when that was by time.monotonic()."""
    return Conditions(
        instance=placement.instance.name,
        label=placement.label,
        note=placement.note,
        threads=placement.threads,
        servers=servers,
        cpus=placement.cpus,
        requests=asked.ref,
        candidates_per_request=distribution(pool.candidates(subjects[0].signature)),
        machine=this_machine(),
        tools=tool_versions(),
        seed=seed,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 3),
    )
