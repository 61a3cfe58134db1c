"""Requests to calibrate ranges on: enough of them, and alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort

from ...core.errors import RefusedStep
from ...runtime.session import SessionSettings
from ..context import StepContext

Feeds = list[dict[str, np.ndarray]]

# With 95 % confidence, the extremes of 59 requests cover those of 95 % of all requests: 0.95^59 < 0.05 (Wilks 1941).
REQUESTS_NEEDED = 59
REQUESTS_USED = 256
_MARGIN = 0.1


def calibration_feeds(context: StepContext, where: str) -> Feeds:
    """Up to 256 real requests spread over the whole file, in its order, in the model's own layout.

    Raises RefusedStep when there are none, fewer than 59, or only generated ones.
    """
    if not context.calibrated or context.requests is None:
        raise RefusedStep(where, "needs real requests to calibrate on", fix="add --requests FILE")
    requests = context.requests
    if requests.ref.generated:
        fix = "take requests from a log of what is served"
        raise RefusedStep(where, f"the requests were generated ({requests.ref.note}), so their ranges say nothing of real ones", fix=fix)
    if len(requests) < REQUESTS_NEEDED:
        problem = (
            f"{len(requests)} requests are too few to calibrate on: {REQUESTS_NEEDED} are needed to see, with 95 % confidence, the range of"
        )
        raise RefusedStep(where, f"{problem} 95 % of all requests", fix="give more requests, or quantize without --static")
    chosen = np.unique(np.linspace(0, len(requests) - 1, REQUESTS_USED).astype(np.int64)).tolist()
    feeds = [feed for feed in requests.take(chosen).feeds(context.signature) if all(array.size for array in feed.values())]
    if len(feeds) < REQUESTS_NEEDED:
        raise RefusedStep(where, f"only {len(feeds)} requests have candidates, {REQUESTS_NEEDED} are needed", fix="give more requests")
    return feeds


def require_alike(model: onnx.ModelProto, names: Sequence[str], feeds: Feeds, where: str) -> None:
    """Raise RefusedStep when the second half of the requests leaves the ranges that the first half has, beyond chance.

    Quantized values are cut off at the range seen. In random order, k given requests of the second half are those that exceed everything
    before them with a chance of at most 2^-k; the test allows 1 in 1,000 over all tensors and both ends. `names` are tensors of the graph.
    """
    extremes = _extremes(model, names, feeds)
    half = len(extremes) // 2
    low, high = extremes[:half, :, 0].min(axis=0), extremes[:half, :, 1].max(axis=0)
    margin = _MARGIN * (high - low)
    below, above = extremes[half:, :, 0] < low - margin, extremes[half:, :, 1] > high + margin
    left = np.maximum(below.sum(axis=0), above.sum(axis=0))
    worst = int(left.argmax())
    if left[worst] >= math.ceil(math.log2(1000 * 2 * len(names))):
        later = (extremes[half:, worst, 0].min(), extremes[half:, worst, 1].max())
        problem = (
            f"the calibration requests are unlike one another: '{names[worst]}' is within [{low[worst]:.3g}, {high[worst]:.3g}] in the"
            f" first half of the file and within [{later[0]:.3g}, {later[1]:.3g}] in the second, where {left[worst]} of"
            f" {len(extremes) - half} requests leave the first range by more than 10 %"
        )
        raise RefusedStep(where, problem, fix="shuffle the file if it is sorted, else draw requests at random from what is served")


def _extremes(model: onnx.ModelProto, names: Sequence[str], feeds: Feeds) -> np.ndarray:
    """Smallest and largest value of each tensor in each request: float64 `[requests, tensors, 2]`."""
    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - the same options as a session

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    given = {value.name for value in [*model.graph.output, *model.graph.input]}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in given)
    session = ort.InferenceSession(watched.SerializeToString(), session_options(SessionSettings()), providers=["CPUExecutionProvider"])
    asked = [name for name in dict.fromkeys(names) if name in {output.name for output in session.get_outputs()}]
    found = np.empty((len(feeds), len(names), 2))
    for number, feed in enumerate(feeds):
        # An empty list of names means all of them to ONNX Runtime.
        values = {**feed, **dict(zip(asked, session.run(asked, feed) if asked else [], strict=True))}
        found[number] = [(values[name].min(), values[name].max()) for name in names]
    return found


def ids_seen(context: StepContext, feeds: Feeds) -> str:
    """How much of each table the requests reach: `item 812 of 5,000 rows`; empty for a model without known tables."""
    parts = []
    for spec in context.signature.inputs:
        if spec.rows_of_table is not None:
            seen = len(np.unique(np.concatenate([feed[spec.name].reshape(-1) for feed in feeds])))
            parts.append(f"{spec.name} {seen:,} of {spec.rows_of_table:,} rows")
    return ", ".join(parts)
