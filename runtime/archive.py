"""Reading model files that PyTorch writes, without running what they contain.

`torch.export.load` falls back to full unpickling, and a zip file can be read in two ways by two readers. So an archive is read here once,
its members are checked, and PyTorch gets a fresh copy that holds only what was checked.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.errors import InputError, UntrustedError
from .archive_graph import clean_json, clean_program

if TYPE_CHECKING:
    import torch

FileKind = Literal["torch.export archive", "TorchScript archive", "torch.save file", "pickle", "ONNX model", "zip file", "unknown file"]

_SAVE_AGAIN = "save it again with torch.export.save"
_PLAIN = "export a model of plain tensors; use --trust-pickle only for a file you made yourself"
_MEMBERS = {"weights": re.compile(r"weight_\d+", re.ASCII), "constants": re.compile(r"tensor_\d+", re.ASCII)}
_NEVER = {"data/aotinductor/": "compiled code", "data/executorch/": "compiled code"}


def kind_of(path: Path) -> FileKind:
    """What a file is by its content; raises InputError when it is missing, a folder or empty."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="a model file", found="nothing", fix="check the path") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})") from None
    if not head:
        raise InputError.mismatch(str(path), expected="a model file", found="an empty file", fix="save the model again")
    if head.startswith(b"PK"):
        with _open_zip(path, str(path)) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
        if "archive_format" in names or "models/model.json" in names:
            return "torch.export archive"
        if "constants.pkl" in names:
            return "TorchScript archive"
        return "torch.save file" if "data.pkl" in names else "zip file"
    if head[0] == 0x80:
        return "pickle"
    # An ONNX file starts with its ir_version: field 1, a small varint, followed by another field.
    return "ONNX model" if head[0] == 0x08 and 1 <= head[1] <= 32 else "unknown file"


def read_zip(source: Path | bytes, where: str = "") -> zipfile.ZipFile:
    """Open a zip as PyTorch writes it: uncompressed, so nothing in it may claim to be larger than the file itself."""
    where = where or str(source)
    archive = _open_zip(source, where)
    members = archive.infolist()
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if any(m.compress_type != zipfile.ZIP_STORED for m in members) or sum(m.file_size for m in members) > size:
        problem = "declares contents larger than the file, or compressed ones; PyTorch writes neither"
        raise InputError(where, problem, fix="save the model again")
    if len({m.filename for m in members}) != len(members):
        raise InputError(where, "holds two members of one name; PyTorch never writes that", fix="save the model again")
    return archive


def _open_zip(source: Path | bytes, where: str) -> zipfile.ZipFile:
    fix = "copy or save the file again"
    try:
        archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(where, f"is a truncated or damaged archive ({error})", fix=fix) from None
    if archive.infolist() and min(m.header_offset for m in archive.infolist()) != 0:
        # What was found is the directory of an archive stored inside this one, whose own end is cut off.
        raise InputError(where, "is a truncated or damaged archive (it does not start where its directory says)", fix=fix)
    return archive


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
    members = _members(path)
    for prefix, what in _NEVER.items():
        if any(name.startswith(prefix) for name in members):
            raise UntrustedError(where, f"holds {what}", fix="save the exported program, not a compiled one")
    models = [name for name in members if name.startswith("models/")]
    if models != ["models/model.json"]:
        expected = "one exported program (models/model.json)"
        raise InputError.mismatch(where, expected=expected, found=", ".join(models) or "none", fix=_SAVE_AGAIN)
    if members.get("byteorder", b"little") != b"little":
        raise InputError.mismatch(where, expected="little-endian tensors", found="another byte order", fix=_SAVE_AGAIN)
    copy = io.BytesIO()
    with PT2ArchiveWriter(copy) as writer:
        for name in ("archive_format", "archive_version", "byteorder"):
            if name in members:
                writer.write_bytes(name, members[name])
        writer.write_bytes("models/model.json", clean_program(members["models/model.json"], where))
        for folder, pattern in _MEMBERS.items():
            _copy_tensors(members, folder, pattern, writer.write_bytes, where)
        writer.write_bytes("data/sample_inputs/model.pt", _plain_inputs(members.get("data/sample_inputs/model.pt", b""), where))
    copy.seek(0)
    return copy


def _members(path: Path) -> dict[str, bytes]:
    """Content by name below the archive's one root folder."""
    with read_zip(path) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}
        if len(roots) != 1:
            raise InputError(str(path), "is not laid out as PyTorch writes archives", fix=_SAVE_AGAIN)
        try:
            return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise InputError(str(path), f"is damaged ({error})", fix="copy or save the file again") from None


def _copy_tensors(
    members: dict[str, bytes], folder: str, pattern: re.Pattern[str], write: Callable[[str, bytes], None], where: str
) -> None:
    """Copy raw tensors and their config; whatever would be unpickled is refused."""
    name = f"data/{folder}/model_{folder}_config.json"
    try:
        entries = json.loads(members[name])["config"]
        files = {entry["path_name"]: entry for entry in entries.values()}
        for entry in entries.values():
            if entry["use_pickle"] is not False or not pattern.fullmatch(entry["path_name"]):
                raise UntrustedError(where, f"holds a pickled object among its {folder} ({entry['path_name']!r})", fix=_PLAIN)
            tensor = members[f"data/{folder}/{entry['path_name']}"]
            if not tensor and 0 not in [size["as_int"] for size in entry["tensor_meta"]["sizes"]]:
                raise InputError(where, f"tensor {entry['path_name']} is empty but declares content", fix=_SAVE_AGAIN)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        problem = f"its {folder} are not as torch.export.save writes them (damaged, or from PyTorch 2.8 or older)"
        raise InputError(where, problem, fix=_SAVE_AGAIN) from None
    write(name, clean_json(members[name], where))
    for file in files:
        write(f"data/{folder}/{file}", members[f"data/{folder}/{file}"])


def _plain_inputs(content: bytes, where: str) -> bytes:
    """The example inputs, unpickled without code and saved again, so that what PyTorch unpickles later is ours."""
    import torch  # noqa: PLC0415 - takes seconds

    if not content:
        return b""
    read_zip(content, f"{where}: its example inputs").close()
    try:
        inputs = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # every refusal and every damage of a pickle has its own type
        raise UntrustedError(
            where, "its example inputs are pickled objects, not tensors; reading them would run code", fix=_PLAIN
        ) from error
    if not isinstance(inputs, tuple | dict):
        raise InputError.mismatch(where, expected="example inputs as a tuple", found=type(inputs).__name__, fix=_SAVE_AGAIN)
    copy = io.BytesIO()
    torch.save(inputs, copy)
    return copy.getvalue()


def a(kind: FileKind) -> str:
    """The kind with its article, for errors."""
    return f"{'an' if kind[0] in 'Ou' else 'a'} {kind}"


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
