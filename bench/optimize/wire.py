"""JSON between the benchmark's processes and in its files; paths travel as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec


def encode(value: object) -> bytes:
    """JSON of a msgspec value."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(data: bytes | str, kind: Any) -> Any:  # noqa: ANN401 - a type or a union of types, and a value of it
    """The value; raises msgspec.ValidationError."""
    return msgspec.json.decode(data, type=kind, dec_hook=_decoded)


def _decoded(kind: type[Any], value: object) -> object:
    if kind is not Path:
        raise TypeError(f"nothing here sends a {kind.__name__}")
    return Path(str(value))
