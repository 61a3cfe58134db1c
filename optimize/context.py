"""What a step's function gets besides the step itself."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ..core.signature import Signature
from .loading import Source
from .samples import Samples


class StepContext(msgspec.Struct, frozen=True, kw_only=True):
    """The model before the step, where to write the one after it, and rows to look at.

    `where` names the model in errors. `calibrated` says that the rows are real requests, so that a step may learn from
    them. `original` is what the model was just exported from (a program or module), for steps that need PyTorch.
    """

    where: str
    source: Path
    target: Path
    signature: Signature
    samples: Samples
    calibrated: bool
    original: Source | None = None
