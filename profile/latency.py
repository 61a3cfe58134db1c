"""`latency`: one or more models on one instance, without judging anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.store import Store
from .inputs import Model, check_duration, load_placements, load_requests, load_subjects
from .machines.instance import LOCAL
from .measure import LAUNCHES, measure
from .result import InstanceLatency
from .summary import summarize


def latency(
    models: Sequence[Model],
    *,
    requests: Requests | Path | str | None = None,
    instance: str = LOCAL,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> InstanceLatency:
    """Service times of `models` on `instance`, in interleaved rounds; requests are generated from the first model when none are given."""
    check_duration(seconds, launches)
    store = Store.of(store)
    placement = load_placements([instance], threads)[0]
    subjects = load_subjects(models, store)
    asked = load_requests(requests, subjects, seed)
    run = measure(subjects, asked, placement, seconds=seconds, launches=launches, seed=seed, store=store, progress=progress)
    return summarize(run, subjects)
