"""One way to run a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from ..core.artifact import ModelArtifact, ModelRef
from ..core.errors import InputError
from ..core.signature import Signature
from ..core.store import Store


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a session may use the machine.

    Threads are always set: left alone, runtimes size their pools from the host's cores and ignore the limits they run under. Spinning
    is off because a spinning pool steals the cores of whatever runs beside it.
    """

    threads: int = 1
    spinning: bool = False


class Session(Protocol):
    """A loaded model. Sessions are not shared between threads unless their class says so."""

    @property
    def ref(self) -> ModelRef:
        """Name, digest, runtime and size, as results name it."""

    @property
    def signature(self) -> Signature:
        """What `run` takes and gives."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name for input tensors by name, shapes and dtypes as in the signature (unchecked: this is the hot path)."""


def scores_of(session: Session, feeds: Mapping[str, np.ndarray], *, where: str) -> np.ndarray:
    """Ranking scores, float64 `[candidates]`; raises InputError when the model gives NaN, infinity or another number of scores."""
    scores = session.signature.scores(session.run(feeds), where=where)
    name = session.signature.outputs[0].name if session.signature.score is None else session.signature.score.text
    expected = max(len(array) for array in feeds.values())
    if len(scores) != expected:
        raise InputError.mismatch(f"{where}: output '{name}'", expected=f"{expected} scores", found=f"{len(scores)}")
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        fix = "the model is broken for this input: run it in PyTorch to see where it appears"
        raise InputError.mismatch(
            f"{where}: output '{name}'", expected="finite scores", found=f"{bad} of {expected} NaN or infinite", fix=fix
        )
    return scores


def open_session(model: str | Path | ModelArtifact, settings: SessionSettings, *, store: Store) -> Session:
    """Load a model by name, digest, path or artifact: a folder runs in ONNX Runtime, a torch.export archive in PyTorch."""
    if not isinstance(model, ModelArtifact) and Path(model).is_file():
        from .torch_session import TorchSession  # noqa: PLC0415 - torch takes seconds to import

        return TorchSession.open(Path(model), settings)
    from .onnx_session import OnnxSession  # noqa: PLC0415 - so does onnxruntime

    return OnnxSession.open(model if isinstance(model, ModelArtifact) else store.resolve(model), settings)
