"""What a step's function gets besides the step itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from ..core.artifact import ModelArtifact
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.signature import Signature
from ..runtime.layout import by_request, request_inputs
from .loading import Source
from .samples import Samples


class StepContext(msgspec.Struct, frozen=True, kw_only=True):
    """The model before the step, where to write the one after it, and rows to look at.

    `where` names the model in errors. `calibrated` says that the rows are real requests, so that a step may learn from
    them: `requests` then holds all of them, `samples` some of their rows in layout `rows`, which every model takes whatever its own
    layout is. `original` is what the model was just exported from (a program or module), for steps that need PyTorch. `base` is the
    version before this one (v1.0), for steps that need both.
    """

    where: str
    source: Path
    target: Path
    signature: Signature
    samples: Samples
    calibrated: bool
    original: Source | None = None
    requests: Requests | None = None
    base: ModelArtifact | None = None
    progress: Progress = silent

    def feeds(self, requests: int = 64) -> Iterator[dict[str, np.ndarray]]:
        """Inputs in the signature's own layout: of the first real requests, or of the samples where there are none."""
        if self.requests is not None:
            yield from self.requests.take(range(min(requests, len(self.requests)))).feeds(self.signature)
            return
        names = request_inputs(self.signature)
        rows = self.samples.rows(self.samples.size)
        if not names:
            yield rows
            return
        for _, feeds in islice(by_request(rows, names), requests):
            yield feeds
