"""ONNX Runtime behind the Session protocol."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from ..core.artifact import ModelArtifact, ModelRef
from ..core.errors import InputError
from ..core.files import sha256_of
from ..core.signature import Signature
from .layout import request_inputs, run_either
from .session import SessionSettings

_CUDA = "CUDAExecutionProvider"
_CUDA_FIX = "pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]', for the CUDA that the driver has"


class OnnxSession:
    """A model in ONNX Runtime, on CPU or on the first GPU that CUDA sees; `run` may be called from several threads at once.

    A model in layout `request` also takes the rows of any number of requests, their request inputs repeated, and runs once for each.
    """

    def __init__(self, session: ort.InferenceSession, signature: Signature, ref: ModelRef) -> None:
        self._session = session
        self._signature = signature
        self._ref = ref
        self._outputs = [o.name for o in signature.outputs]
        self._once = request_inputs(signature)

    @classmethod
    def open(cls, artifact: ModelArtifact, settings: SessionSettings) -> OnnxSession:
        """Load an artifact here whatever runtime its recipe chose; raises InputError when ONNX Runtime refuses it."""
        return cls(load_onnx(artifact.model_path, settings.over(artifact.manifest.session)), artifact.manifest.signature, artifact.ref())

    @classmethod
    def open_file(cls, path: Path, settings: SessionSettings) -> OnnxSession:
        """Load an ONNX file as it lies, every input a candidate input; raises InputError when it is damaged or leaves its folder.

        A file from elsewhere is to be tried with `check_onnx` before: ONNX Runtime can take the process down.
        """
        from .onnx_file import load  # noqa: PLC0415 - artifacts do not need it
        from .onnx_signature import signature_from_graph  # noqa: PLC0415

        signature = signature_from_graph(load(path), str(path))
        ref = ModelRef(name=path.stem, digest=sha256_of(path), runtime="onnxruntime", size_bytes=path.stat().st_size)
        return cls(load_onnx(path, settings), signature, ref)

    @property
    def ref(self) -> ModelRef:
        return self._ref

    @property
    def signature(self) -> Signature:
        return self._signature

    def end_node_times(self) -> tuple[Path, int]:
        """Stop recording node times: the file they are in, and when its times count from, in Unix nanoseconds."""
        begun: int = self._session.get_profiling_start_time_ns()
        return Path(self._session.end_profiling()), begun

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return run_either(self._run, feeds, self._once)

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(feeds)), strict=True))


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    """ONNX Runtime's options for these settings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.thread_count
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    options.enable_cpu_mem_arena = settings.arena is not False
    # Failures are raised; logging them as well would only clutter the terminal.
    options.log_severity_level = 4
    if settings.node_times is not None:
        options.enable_profiling = True
        options.profile_file_prefix = settings.node_times
    return options


def load_onnx(path: Path, settings: SessionSettings) -> ort.InferenceSession:
    """An ONNX Runtime session; raises InputError with ONNX Runtime's own reason when it refuses the file or has no GPU."""
    providers = ["CPUExecutionProvider"] if settings.device == "cpu" else _cuda_providers(str(path))
    try:
        session = ort.InferenceSession(path, session_options(settings), providers=providers)
    except Exception as error:  # ONNX Runtime raises its own types, which share no public base class
        raise InputError(str(path), f"ONNX Runtime cannot load it: {str(error).splitlines()[0]}", fix="export the model again") from error
    # A provider that cannot start is left out with no more than a log line.
    used = session.get_providers()
    if used[0] != providers[0]:
        raise InputError.mismatch(str(path), expected=f"{providers[0]} to start", found=", ".join(used), fix=_CUDA_FIX)
    return session


def _cuda_providers(where: str) -> list[str]:
    """CUDA first; nodes that it has no kernels for run on CPU, and ONNX Runtime copies between them."""
    known = ort.get_available_providers()
    if _CUDA not in known:
        found = f"onnxruntime {ort.__version__} with {', '.join(known)}"
        raise InputError.mismatch(where, expected=f"an ONNX Runtime with {_CUDA}", found=found, fix=_CUDA_FIX)
    # CUDA and cuDNN as pip installs them are found only when they are loaded before.
    ort.preload_dlls()
    return [_CUDA, "CPUExecutionProvider"]
