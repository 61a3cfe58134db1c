"""What every tool may learn ranges from: the same validation requests for all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....core.artifact import read_artifact
from ....core.requests import Requests
from ..variants import Job

REQUESTS = 128


def feeds(job: Job, requests: int = REQUESTS) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of requests spread over the validation users, their request inputs repeated: what the model was exported to take."""
    everything = Requests.read(job.calibration)
    chosen = np.linspace(0, len(everything) - 1, requests).astype(int).tolist()
    yield from everything.take(chosen).feeds(read_artifact(job.base).manifest.signature)
