"""liftgate's shipped recipes."""

from __future__ import annotations

from pathlib import Path

from ....core.store import Store
from ....optimize.apply import apply
from ..variants import Job


def recipe(job: Job) -> tuple[Path, str]:
    """Apply the recipe that the variant is named after, calibrated on the validation requests."""
    name = job.variant.removeprefix("liftgate-")
    store = Store(job.store)
    made = apply(name, store.resolve(job.case), requests=job.calibration, store=store)
    return made.path, "; ".join(f"{step.kind}: {step.summary}" for step in made.manifest.steps if step.kind != "export")
