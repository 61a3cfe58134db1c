"""One way to run a model, whatever runs it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
import numpy as np

from ..core.artifact import MANIFEST_FILE, Manifest, ModelArtifact, ModelRef
from ..core.errors import InputError
from ..core.session_defaults import Device, SessionDefaults
from ..core.signature import Signature
from ..core.store import Store
from .kinds import a, kind_of

if TYPE_CHECKING:
    from .onnx_session import OnnxSession
    from .torch_session import TorchSession


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a session may use the machine.

    None leaves a setting to what the model's recipe said, and where that said nothing: one thread, no spinning, an arena. Threads are
    always set: left alone, runtimes size their pools from the host's cores and ignore the limits they run under. Spinning is off because
    a spinning pool steals the cores of whatever runs beside it. On `cuda` a session takes its inputs from main memory and gives its outputs
    there, and `run` returns when they have arrived. `node_times` is the beginning of the name of a file that ONNX Runtime writes its node
    times to, which slows the model down.
    """

    threads: int | None = None
    spinning: bool | None = None
    arena: bool | None = None
    device: Device = "cpu"
    node_times: str | None = None

    def over(self, defaults: SessionDefaults | None) -> SessionSettings:
        """These settings, with what they leave open taken from `defaults`."""
        if defaults is None:
            return self
        return SessionSettings(
            threads=defaults.threads if self.threads is None else self.threads,
            spinning=defaults.spinning if self.spinning is None else self.spinning,
            arena=defaults.arena if self.arena is None else self.arena,
            device=self.device,
            node_times=self.node_times,
        )

    @property
    def thread_count(self) -> int:
        """Threads that compute one request."""
        return 1 if self.threads is None else self.threads


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
    """Load a model by name, digest, path or artifact.

    Artifacts run in the runtime that their recipe chose, ONNX Runtime unless it did; ONNX files in ONNX Runtime, torch.export archives in
    PyTorch. Raises InputError for any other kind of file, which has to be exported first.
    """
    if isinstance(model, ModelArtifact) or not Path(model).is_file():
        return open_artifact(model if isinstance(model, ModelArtifact) else store.resolve(model), settings)
    if kind_of(Path(model)) == "ONNX model":
        from .onnx_file import check_onnx  # noqa: PLC0415 - onnx takes a second to import

        check_onnx(Path(model))
    return open_file(Path(model), settings)


def open_artifact(artifact: ModelArtifact, settings: SessionSettings) -> Session:
    """Load an artifact as its recipe wants it, where `settings` do not say otherwise."""
    from .runtimes import open_model  # noqa: PLC0415 - it imports this module

    wanted = artifact.manifest.session or SessionDefaults()
    return open_model(
        artifact.model_path,
        artifact.manifest.signature,
        artifact.ref(),
        settings.over(wanted),
        runtime=wanted.runtime,
        precision=wanted.precision,
    )


def open_file(path: Path, settings: SessionSettings) -> Session:
    """Load a model file that was opened before, and so is known to harm nobody; raises InputError for a file that nothing runs."""
    return _runs_file(path).open_file(path, settings)


def import_runtime(path: Path) -> None:
    """Import what runs the model file or the artifact's folder at `path`, and nothing more; raises InputError where nothing does.

    Of an artifact only the manifest is read, so that its model is not in the page cache yet when loading is timed.
    """
    if not path.is_dir():
        _runs_file(path)
        return
    try:
        manifest = msgspec.json.decode((path / MANIFEST_FILE).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):  # opening the artifact says what is wrong with it
        return
    runtime = "onnxruntime" if manifest.session is None else manifest.session.runtime
    if find_spec(runtime) is not None:
        import_module(runtime)


def _runs_file(path: Path) -> type[OnnxSession | TorchSession]:
    kind = kind_of(path)
    if kind == "ONNX model":
        from .onnx_session import OnnxSession  # noqa: PLC0415 - onnxruntime takes a second to import

        return OnnxSession
    if kind == "torch.export archive":
        from .torch_session import TorchSession  # noqa: PLC0415 - torch takes seconds

        return TorchSession
    fix = f"export it first: optimize export {path} --name NAME"
    raise InputError.mismatch(str(path), expected="an artifact, an ONNX file or a torch.export archive", found=a(kind), fix=fix)
