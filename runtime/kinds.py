"""What a model file is, told from its content; names and suffixes say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..core.errors import InputError
from .members import names_of

FileKind = Literal[
    "torch.export archive",
    "TorchScript archive",
    "torch.save file",
    "safetensors file",
    "pickle",
    "ONNX model",
    "Hugging Face model folder",
    "liftgate artifact",
    "folder",
    "zip file",
    "unknown file",
]

# The number that starts every file torch.save wrote before it wrote zips, as a pickled long.
LEGACY_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_LARGEST_CONFIG_BYTES = 2**20


def kind_of(path: Path) -> FileKind:
    """What a file or folder is by its content; raises InputError when it is missing, empty or cannot be read."""
    try:
        if path.is_dir():
            return _kind_of_folder(path)
        if path.exists() and not path.is_file():
            raise InputError.mismatch(str(path), expected="a model file", found="a device or pipe", fix="give a regular file")
        with path.open("rb") as file:
            head = file.read(32)
            size = path.stat().st_size
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="a model file", found="nothing", fix="check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(str(path), f"cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if not head:
        raise InputError.mismatch(str(path), expected="a model file", found="an empty file", fix="save the model again")
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head[0] == 0x80:
        return "torch.save file" if LEGACY_MAGIC in head else "pickle"
    # A safetensors file starts with the length of the JSON that follows.
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors file"
    # An ONNX file starts with its ir_version: field 1, a small varint, followed by another field.
    return "ONNX model" if len(head) > 1 and head[0] == 0x08 and 1 <= head[1] <= 32 else "unknown file"


def a(kind: FileKind) -> str:
    """The kind with its article, for errors."""
    return f"{'an' if kind[0] in 'Ou' else 'a'} {kind}"


def read_config(folder: Path) -> dict[str, object] | None:
    """The `config.json` of a Hugging Face model folder, None where there is none or it is something else."""
    file = folder / "config.json"
    try:
        if file.stat().st_size > _LARGEST_CONFIG_BYTES:
            return None
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    known = isinstance(config, dict) and (isinstance(config.get("model_type"), str) or isinstance(config.get("architectures"), list))
    return config if known else None


def _kind_of_zip(path: Path) -> FileKind:
    names = names_of(path)
    if "archive_format" in names or "models/model.json" in names:
        return "torch.export archive"
    if "constants.pkl" in names:
        return "TorchScript archive"
    return "torch.save file" if "data.pkl" in names else "zip file"


def _kind_of_folder(path: Path) -> FileKind:
    if read_config(path) is not None:
        return "Hugging Face model folder"
    return "liftgate artifact" if (path / "manifest.json").is_file() else "folder"
