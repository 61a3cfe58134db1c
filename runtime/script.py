"""Reading a TorchScript archive without running what it contains."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, UntrustedError
from .archive import quiet
from .kinds import a, kind_of
from .members import members_of, write_zip
from .plain_pickle import follow
from .script_check import checked_sources
from .script_code import read_code
from .script_values import ValueWriter, used_storages

if TYPE_CHECKING:
    import torch

_SAVE_AGAIN = "save it again with torch.jit.save"
_LARGEST_CODE_BYTES = 2**27
_VERSION = re.compile(rb"\d{1,3}\s*")


def open_script(path: Path, *, trust_pickle: bool = False) -> torch.jit.ScriptModule:
    """The module in a TorchScript archive, on the CPU.

    Raises UntrustedError when its code does more than compute with tensors (with `trust_pickle` it is read all the same), InputError when
    it is damaged or something else.
    """
    import torch  # noqa: PLC0415 - takes seconds

    kind = kind_of(path)
    if kind != "TorchScript archive":
        raise InputError.mismatch(str(path), expected="a TorchScript archive", found=a(kind), fix="save it with torch.jit.save")
    with quiet():
        content = io.BytesIO(path.read_bytes()) if trust_pickle else clean_script(path)
        try:
            module: torch.jit.ScriptModule = torch.jit.load(content, map_location="cpu")  # type: ignore[no-untyped-call]  # torch leaves it untyped
        except Exception as error:  # the compiler raises whatever it trips over
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            fix = f"{_SAVE_AGAIN}, by a PyTorch no newer than {torch.__version__}"
            raise InputError(str(path), f"PyTorch cannot load the TorchScript archive ({reason[:200]})", fix=fix) from error
    return module


def clean_script(path: Path) -> io.BytesIO:
    """A fresh archive with the checked code and values of the one at `path`; raises UntrustedError or InputError."""
    where = str(path)
    members = members_of(path, where, code_bytes=_LARGEST_CODE_BYTES)
    if "model.json" in members:
        raise UntrustedError(where, "is in the format of PyTorch 1.0, which cannot be checked", fix=_SAVE_AGAIN)
    if bytes(members.get("byteorder", b"little")) != b"little":
        raise InputError.mismatch(where, expected="little-endian tensors", found="another byte order", fix=_SAVE_AGAIN)
    version_name = ".data/version" if ".data/version" in members else "version"
    version = bytes(members.get(version_name, b""))
    if _VERSION.fullmatch(version) is None or "data.pkl" not in members:
        raise InputError(where, "is not laid out as torch.jit.save writes archives (damaged)", fix=_SAVE_AGAIN)
    code = read_code(members, where)
    copy: dict[str, bytes | bytearray] = {version_name: version, "byteorder": b"little", **checked_sources(code, where)}
    for name in ("constants", "data"):
        pickled = members[f"{name}.pkl"]
        writer = ValueWriter(code, f"{where}: {name}.pkl", limit_bytes=16 * len(pickled) + 2**20)
        value = follow(pickled, f"{where}: {name}.pkl")
        copy[f"{name}.pkl"] = writer.constants(value) if name == "constants" else writer.module(value)
        copy.update(used_storages(writer.tensors, members, name, where))
    return write_zip(copy)
