"""How far quantization moves a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.artifact import ModelRef
from ...core.signature import Signature
from ...runtime.onnx_session import OnnxSession, load_onnx
from ...runtime.session import SessionSettings
from ..agreement import spearman

REQUESTS_COMPARED = 64


def answers(path: Path, signature: Signature, feeds: Sequence[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """What the model at `path` says to each request: its ranking scores, float64 `[candidates]`, or all outputs where it has none."""
    session = OnnxSession(load_onnx(path, SessionSettings()), signature, ModelRef(name="", digest="", runtime="onnxruntime", size_bytes=0))
    said = (session.run(feed) for feed in feeds)
    if signature.score is not None:
        return [signature.scores(outputs, where=str(path)) for outputs in said]
    return [np.concatenate([np.asarray(array, dtype=np.float64).reshape(-1) for array in outputs.values()]) for outputs in said]


def ranking_loss(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    """1 - Spearman's rank correlation, mean over requests; over all rows at once where no request has two different scores.

    1 when `after` holds NaN or infinity, 0 when nothing can be ranked.
    """
    if not all(np.isfinite(array).all() for array in after):
        return 1.0
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if np.ptp(a) > 0]
    if not pairs:
        pairs = [(np.concatenate(before), np.concatenate(after))]
    # A model that now scores everybody alike has lost the ranking whole.
    found = [(0.0 if np.ptp(a) > 0 else 1.0) if (kept := spearman(a, b)) is None else kept for a, b in pairs]
    return 1.0 - float(np.mean(found))
