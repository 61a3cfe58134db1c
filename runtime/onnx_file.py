"""Reading an ONNX file that may be damaged, or made to harm."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from ..core.errors import InputError
from .onnx_sizes import check_model
from .onnx_trial import try_onnx

_LARGEST_BYTES = 2**31 - 1


def load(path: Path, where: str = "") -> ir.Model:
    """Read an ONNX file; raises InputError when it is damaged, or when it points at files outside its own folder."""
    where = where or str(path)
    _check(path, where)
    try:
        onnx.checker.check_model(str(path))
        return ir.load(path)
    except Exception as error:  # the checker raises types of its own, with no public base class
        raise _invalid(where, error) from error


def check_onnx(path: Path) -> None:
    """Raise InputError unless ONNX Runtime can load the file, tried in another process: it can crash on a damaged graph, and hang."""
    _check(path, str(path))
    try_onnx(path)


def _check(path: Path, where: str) -> None:
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        fix = "save its weights beside it: onnx.save(model, path, save_as_external_data=True)"
        raise InputError.mismatch(where, expected="an ONNX file of less than 2 GiB", found=f"{size / 2**30:.1f} GiB", fix=fix)
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises types of its own
        raise _invalid(where, error) from None
    check_model(proto, path.parent, where)


def _invalid(where: str, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(where, f"is no valid ONNX model ({reason[:200]})", fix="export the model again")
