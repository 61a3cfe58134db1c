"""What the word that a user types as MODEL names, and what to call an export of it."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import InputError, LiftgateError
from ..core.store import Store, check_name
from ..runtime.kinds import kind_of

_LONGEST_NAME = 255  # bytes of a file name, more is an error of the system
_SUFFIXES = (".pt", ".pt2", ".pth", ".onnx", ".ts", ".safetensors")


def names_a_source(text: str, store: Store) -> bool:
    """Whether `text` is something to export rather than an artifact: a model file, a Hugging Face folder, `train.py:make_model`.

    What is neither in `store` nor there at all, but ends like a model file, is a mistyped path and no name to look up.
    """
    path = Path(text)
    if len(path.name) > _LONGEST_NAME:
        return False
    if path.is_dir():
        return kind_of(path) == "Hugging Face model folder"
    if path.is_file():
        return True
    return text not in store.names() and (_factory(text) is not None or text.endswith(_SUFFIXES))


def default_name(text: str) -> str:
    """`v1.1` for `runs/v1.1.pt`, `make_model` for `train.py:make_model`, a folder's own name; raises InputError when it cannot be one."""
    name = _factory(text) or (Path(text).resolve().name if Path(text).is_dir() else Path(text).stem)
    try:
        return check_name(name)
    except LiftgateError:
        fix = "say what to call it: optimize export MODEL --name NAME"
        raise InputError(text, "its file name cannot name a model", fix=fix) from None


def _factory(text: str) -> str | None:
    file, colon, factory = text.rpartition(":")
    return factory if colon and file and factory.isidentifier() and not Path(text).exists() else None
