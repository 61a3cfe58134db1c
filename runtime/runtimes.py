"""Which library runs an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from ..core.artifact import ModelRef
from ..core.errors import InputError, UnknownName
from ..core.session_defaults import Precision, Runtime
from ..core.signature import Signature
from .session import Session, SessionSettings

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


def read_runtimes(names: Sequence[str], *, where: str) -> tuple[Runtime, ...]:
    """Runtimes by name, each once; raises UnknownName for a name that is none, InputError for one that is not installed."""
    known: dict[str, Runtime] = {name: name for name in RUNTIMES}
    for name in names:
        if name not in known:
            raise UnknownName(where, "runtime", name, RUNTIMES)
        require_installed(known[name], where=where)
    return tuple(dict.fromkeys(known[name] for name in names))


def require_installed(runtime: Runtime, *, where: str) -> None:
    """Raise InputError unless `runtime` can be imported."""
    if find_spec(runtime) is None:
        raise InputError.mismatch(where, expected=f"the package {runtime}", found="nothing", fix=f"pip install 'liftgate[{runtime}]'")


def open_model(
    path: Path, signature: Signature, ref: ModelRef, settings: SessionSettings, *, runtime: Runtime, precision: Precision = "f32"
) -> Session:
    """A session over the ONNX file at `path`; raises InputError when the runtime refuses it or is not installed."""
    if runtime == "openvino":
        require_installed(runtime, where=f"opening {ref.name}")
        from .openvino_session import OpenVinoSession, load_openvino  # noqa: PLC0415 - an extra, and slow to import

        return OpenVinoSession(load_openvino(path, settings, precision), signature, ref)
    from .onnx_session import OnnxSession, load_onnx  # noqa: PLC0415 - onnxruntime takes a second to import

    return OnnxSession(load_onnx(path, settings), signature, ref)
