"""A step's context with real requests, for a model written as ONNX text."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from liftgate.core.requests import Requests
from liftgate.optimize.context import StepContext

from .step_context import context_of


def with_requests(
    text: str,
    folder: Path,
    values: list[np.ndarray],
    *,
    name: str = "x",
    labels: list[list[float]] | None = None,
    segments: list[str] | None = None,
    note: str = "",
) -> StepContext:
    """One request per array of `values`, each `[candidates, ...]`, for the model's only input."""
    count = len(values)
    data: dict[str, list[object]] = {
        "request_id": [f"r{i}" for i in range(count)],
        "user_id": [f"u{i}" for i in range(count)],
        name: [value.tolist() for value in values],
    }
    if labels is not None:
        data["label"] = list(labels)
    if segments is not None:
        data["segment"] = list(segments)
    context = context_of(text, folder, {name: np.concatenate(values)}, calibrated=True)
    return msgspec.structs.replace(context, requests=Requests.of(data, source="requests.parquet", note=note))
