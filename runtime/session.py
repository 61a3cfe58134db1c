"""One way to run a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from ..core.artifact import ModelArtifact, ModelRef
from ..core.errors import InputError
from ..core.signature import Signature
from ..core.store import Store
from .kinds import a, kind_of

if TYPE_CHECKING:
    from .onnx_session import OnnxSession
    from .torch_session import TorchSession


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
    """Load a model by name, digest, path or artifact: artifacts and ONNX files run in ONNX Runtime, torch.export archives in PyTorch.

    Raises InputError for any other kind of file, which has to be exported first.
    """
    if isinstance(model, ModelArtifact) or not Path(model).is_file():
        from .onnx_session import OnnxSession  # noqa: PLC0415 - onnxruntime takes a second to import

        return OnnxSession.open(model if isinstance(model, ModelArtifact) else store.resolve(model), settings)
    if kind_of(Path(model)) == "ONNX model":
        from .onnx_file import check_onnx  # noqa: PLC0415 - onnx takes a second to import

        check_onnx(Path(model))
    return open_file(Path(model), settings)


def open_file(path: Path, settings: SessionSettings) -> Session:
    """Load a model file that was opened before, and so is known to harm nobody; raises InputError for a file that nothing runs."""
    return import_runtime(path).open_file(path, settings)


def import_runtime(path: Path) -> type[OnnxSession | TorchSession]:
    """What runs the model file or the artifact's folder at `path`, imported and nothing more; raises InputError where nothing does."""
    kind = "ONNX model" if path.is_dir() else kind_of(path)
    if kind == "ONNX model":
        from .onnx_session import OnnxSession  # noqa: PLC0415 - onnxruntime takes a second to import

        return OnnxSession
    if kind == "torch.export archive":
        from .torch_session import TorchSession  # noqa: PLC0415 - torch takes seconds

        return TorchSession
    fix = f"export it first: optimize export {path} --name NAME"
    raise InputError.mismatch(str(path), expected="an artifact, an ONNX file or a torch.export archive", found=a(kind), fix=fix)
