"""What `optimize search` finds in five minutes under floors like the benchmark's own."""

from __future__ import annotations

from pathlib import Path

from ....core.requests import Requests
from ....core.store import Store
from ....optimize.search.search import search
from ....profile.budget import parse_budget
from ..features import SEGMENTS
from ..variants import Job

_SECONDS = 300.0


def searched(job: Job) -> tuple[Path, str]:
    """Search on half of the validation users, gate on the others; raises RuntimeError when nothing holds the floors."""
    requests = Requests.read(job.calibration)
    halves = [[at for at, user in enumerate(requests.user_ids) if int(user) % 2 == half] for half in (0, 1)]
    gates = ['[[gate]]\nmetric = "ndcg@10"\nmax_drop = "0.5%"\n', *(_gate(segment) for segment in SEGMENTS)]
    store = Store(job.store)
    found = search(
        job.case,
        base=job.case,
        requests=requests.take(halves[0]),
        gate_requests=requests.take(halves[1]),
        budget=parse_budget("".join(gates), source="the benchmark's floors"),
        seconds=_SECONDS,
        runtimes=("onnxruntime", "openvino"),
        name=f"{job.case}-searched",
        store=store,
    )
    if found.winner is None or found.recipe is None:
        raise RuntimeError(f"nothing held the floors in {len(found.trials)} trials")
    steps = ", ".join(type(step).__name__ for step in found.recipe.steps)
    return store.resolve(found.winner.name).path, f"{len(found.trials)} trials; {steps}"


def _gate(segment: str) -> str:
    return f'[[gate]]\nmetric = "ndcg@10"\nsegment = "{segment}"\nmax_drop = "0.5%"\n'
