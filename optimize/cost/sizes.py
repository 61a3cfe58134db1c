"""How large a request is taken to be: its candidates, and every other dimension that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from ...core.errors import InputError, UnknownName
from ...core.signature import Dim, InputSpec, Signature

CANDIDATES = 256
USUAL = 50


class Sizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Candidates of a request, and a size for every other named dimension of a signature."""

    candidates: int
    dims: dict[str, int]

    def shape(self, spec: InputSpec, signature: Signature) -> tuple[int, ...]:
        """The shape of an input at these sizes."""
        leading = spec.shape[0]
        if isinstance(leading, str):
            leading = 1 if signature.layout == "request" and spec.role == "request" else self.candidates
        return (leading, *(self._size(dim, spec) for dim in spec.shape[1:]))

    def _size(self, dim: Dim, spec: InputSpec) -> int:
        if isinstance(dim, int):
            return dim
        return self.candidates if dim == spec.shape[0] else self.dims[dim]

    def of_one_row(self) -> Sizes:
        """The same with a single candidate."""
        return msgspec.structs.replace(self, candidates=1)


def sizes_of(signature: Signature, *, candidates: int = CANDIDATES, dims: Mapping[str, int] | None = None) -> Sizes:
    """Sizes for `signature`: those in `dims` (by dimension, or by input where only one of its dimensions varies), 50 for others.

    Raises UnknownName for a dimension that does not exist, InputError for a size below 1 or a dimension that does not vary.
    """
    rows = {spec.shape[0] for spec in signature.inputs}
    names = [d for d in dict.fromkeys(d for spec in signature.inputs for d in spec.shape[1:]) if isinstance(d, str) and d not in rows]
    chosen = dict.fromkeys(names, USUAL)
    for name, size in (dims or {}).items():
        chosen[_dimension(name, names, signature)] = _at_least_one(size, f"--dim {name}")
    return Sizes(candidates=_at_least_one(candidates, "--candidates"), dims=chosen)


def read_dims(written: Sequence[str]) -> dict[str, int]:
    """Sizes from `history=50`; raises InputError for anything else."""
    dims = {}
    for text in written:
        name, _, size = text.partition("=")
        if not name or not size.isdecimal():
            raise InputError.mismatch("--dim", expected="NAME=SIZE", found=repr(text), fix="for example --dim history=50")
        dims[name] = int(size)
    return dims


def _dimension(name: str, known: list[str], signature: Signature) -> str:
    if name in known:
        return name
    if name in {spec.shape[0] for spec in signature.inputs}:
        raise InputError(f"--dim {name}", "is the number of candidates", fix="use --candidates")
    for spec in signature.inputs:
        if spec.name == name:
            varying = [dim for dim in spec.shape[1:] if isinstance(dim, str)]
            if len(varying) == 1:
                return varying[0]
            found = f"shape {list(spec.shape)}"
            raise InputError.mismatch(f"--dim {name}", expected="an input with one dimension that varies besides rows", found=found)
    raise UnknownName("--dim", "dimension", name, known)


def _at_least_one(size: int, where: str) -> int:
    if size < 1:
        raise InputError.mismatch(where, expected="a size of at least 1", found=str(size))
    return size
