"""What `liftgate.save` writes into a torch.export archive beside the program: example inputs, roles and the score, as plain JSON.

PyTorch keeps example inputs as a pickle; an archive of ours has none. It lies at `extra/liftgate.json`, where `torch.export.load` hands
it out as an extra file, so that the archive stays one that PyTorch reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from ..core.errors import InputError
from ..core.signature import DTYPES, Role
from .members import read_zip

MEMBER = "liftgate.json"
_LARGEST_BYTES = 64 * 2**20


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One example input: `data` holds the numbers in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: tuple[float | int | bool | str, ...]

    def array(self, where: str) -> np.ndarray:
        """The tensor; raises InputError when the numbers do not fit its shape or dtype."""
        if self.dtype not in DTYPES or any(size < 0 for size in self.shape) or len(self.data) != int(np.prod(self.shape, dtype=object)):
            raise InputError(where, "holds example inputs that are damaged", fix="save the model again with liftgate.save")
        try:
            return np.array(self.data, dtype=self.dtype).reshape(self.shape)
        except (ValueError, OverflowError, TypeError):
            raise InputError(where, "holds example inputs that are damaged", fix="save the model again with liftgate.save") from None


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Example inputs by name, the inputs that belong to the request (None when nobody said), and the score as a person writes it."""

    version: int = 1
    examples: dict[str, Example] = {}
    request_inputs: tuple[str, ...] | None = None
    score: str | None = None

    def roles(self) -> dict[str, Role]:
        """Role per example input, nothing when nobody said."""
        if self.request_inputs is None:
            return {}
        return {name: "request" if name in self.request_inputs else "candidate" for name in self.examples}


def describe(examples: Mapping[str, np.ndarray], request_inputs: tuple[str, ...] | None, score: str | None) -> str:
    """The JSON text to put into an archive."""
    listed = {
        name: Example(dtype=str(array.dtype), shape=array.shape, data=tuple(_number(value) for value in array.reshape(-1).tolist()))
        for name, array in examples.items()
    }
    return msgspec.json.encode(Description(examples=listed, request_inputs=request_inputs, score=score)).decode()


def _number(value: float) -> float | str:
    """JSON has no infinities and no NaN: they are written as text."""
    return value if math.isfinite(value) else str(value)


def read_description(path: Path) -> Description:
    """What the archive at `path` says of itself, nothing when `liftgate.save` did not write it; raises InputError when it is damaged."""
    where = str(path)
    with read_zip(path) as archive:
        member = next((m for m in archive.infolist() if m.filename.partition("/")[2] == f"extra/{MEMBER}"), None)
        if member is None:
            return Description()
        if member.file_size > _LARGEST_BYTES:
            raise InputError.mismatch(where, expected=f"a description of at most {_LARGEST_BYTES} bytes", found=f"{member.file_size}")
        try:
            found = msgspec.json.decode(archive.read(member), type=Description)
        except Exception as error:  # a damaged zip member raises types of its own, and so do damaged JSON and UTF-8
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(where, f"its description is damaged ({reason[:160]})", fix="save the model again with liftgate.save") from None
    if found.version != 1:
        raise InputError.mismatch(where, expected="a description of version 1", found=f"version {found.version}", fix="update liftgate")
    return found
