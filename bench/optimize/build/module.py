"""The trained third-party module itself."""

from __future__ import annotations

import torch

from ..catalogue import CASES
from ..variants import Job


def module_of(job: Job) -> torch.nn.Module:
    """The case's module with its weights, in evaluation mode."""
    module = CASES[job.case].build(job.users, job.items)
    module.load_state_dict(torch.load(job.weights, weights_only=True))
    return module.eval()
