"""Reading model files that PyTorch writes, without running what they contain.

`torch.export.load` falls back to full unpickling, and a zip file can be read in two ways by two readers. So an archive is read here once,
its members are checked, and PyTorch gets a fresh copy that holds only what was checked.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, UntrustedError
from .archive_graph import clean_program
from .archive_tensors import FOLDERS, clean_tensors
from .content import open_content
from .kinds import a, kind_of
from .members import members_of

if TYPE_CHECKING:
    import torch

_SAVE_AGAIN = "save it again with torch.export.save"
_PLAIN = "export a model of plain tensors; use --trust-pickle only for a file you made yourself"
_NEVER = {"data/aotinductor/": "compiled code", "data/executorch/": "compiled code"}


def open_archive(path: Path, *, trust_pickle: bool = False) -> torch.export.ExportedProgram:
    """The program in a torch.export archive.

    Raises UntrustedError when reading it would run code it contains (with `trust_pickle` it is read all the same), InputError when it is
    damaged or something else.
    """
    import torch  # noqa: PLC0415 - takes seconds

    kind = kind_of(path)
    if kind != "torch.export archive":
        fix = "save it with torch.export.save(torch.export.export(model, args, dynamic_shapes=...), path)"
        raise InputError.mismatch(str(path), expected="a torch.export archive", found=a(kind), fix=fix)
    with quiet():
        content = io.BytesIO(path.read_bytes()) if trust_pickle else clean_copy(path)
        try:
            program = torch.export.load(content)
        except Exception as error:  # the loader raises whatever it trips over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            fix = f"{_SAVE_AGAIN}, by a PyTorch no newer than {torch.__version__}"
            raise InputError(str(path), f"PyTorch cannot load the archive ({reason[:200]})", fix=fix) from error
    return program


def clean_copy(path: Path) -> io.BytesIO:
    """A fresh archive with the checked members of the one at `path`; raises UntrustedError or InputError."""
    from torch.export.pt2_archive import PT2ArchiveWriter  # noqa: PLC0415 - torch takes seconds

    where = str(path)
    members = members_of(path, where)
    for prefix, what in _NEVER.items():
        if any(name.startswith(prefix) for name in members):
            raise UntrustedError(where, f"holds {what}", fix="save the exported program, not a compiled one")
    models = [name for name in members if name.startswith("models/")]
    if models != ["models/model.json"]:
        expected = "one exported program (models/model.json)"
        raise InputError.mismatch(where, expected=expected, found=", ".join(models) or "none", fix=_SAVE_AGAIN)
    if bytes(members.get("byteorder", b"little")) != b"little":
        raise InputError.mismatch(where, expected="little-endian tensors", found="another byte order", fix=_SAVE_AGAIN)
    copy = io.BytesIO()
    with PT2ArchiveWriter(copy) as writer:
        for name in ("archive_format", "archive_version", "byteorder"):
            if name in members:
                writer.write_bytes(name, bytes(members[name]))
        writer.write_bytes("models/model.json", clean_program(bytes(members["models/model.json"]), where))
        for folder in FOLDERS:
            for name, content in clean_tensors(members, folder, where):
                writer.write_bytes(name, content)
        writer.write_bytes("data/sample_inputs/model.pt", _plain_inputs(members.get("data/sample_inputs/model.pt", bytearray()), where))
    copy.seek(0)
    return copy


def _plain_inputs(content: bytearray, where: str) -> bytes:
    """The example inputs, rebuilt without unpickling and saved again, so that what PyTorch unpickles later is ours."""
    import torch  # noqa: PLC0415 - takes seconds

    if not content:
        return b""
    try:
        with open_content(bytes(content), f"{where}: its example inputs") as found:
            inputs = found.plain_values()
    except UntrustedError as error:
        problem = "its example inputs are pickled objects, not tensors; reading them would run code"
        raise UntrustedError(where, problem, fix=_PLAIN) from error
    if not isinstance(inputs, tuple | dict):
        raise InputError.mismatch(where, expected="example inputs as a tuple", found=type(inputs).__name__, fix=_SAVE_AGAIN)
    copy = io.BytesIO()
    torch.save(inputs, copy)
    return copy.getvalue()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's and ONNX's log lines and warnings off the terminal while the block runs (for the whole process)."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
