"""What a model takes and gives: named tensors with roles and a layout."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from .errors import InputError, UnknownName

Role = Literal["request", "candidate"]
Layout = Literal["rows", "request"]
Dim = int | str

DTYPES: tuple[str, ...] = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input tensor.

    `shape` has a name for every dimension that varies (`"rows"`, `"history"`) and a size for every one that does not.
    `role` is `request` (one value per request: user, context, history) or `candidate` (one per item to be scored).
    `rows_of_table` is the number of rows of the embedding table this input indexes, when that is known.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    role: Role
    rows_of_table: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UnknownName(f"input '{self.name}'", "dtype", self.dtype, DTYPES)
        if not self.shape:
            raise InputError.mismatch(f"input '{self.name}'", expected="at least one dimension (rows)", found="a scalar")


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output tensor; the first output of a signature is the score that candidates are ranked by."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs and outputs of a ranker.

    In layout `rows` every input has one row per candidate, request inputs repeated, as training code writes it; in layout
    `request` the request inputs have leading dimension 1 and the candidate inputs N.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    layout: Layout = "rows"

    def input(self, name: str) -> InputSpec:
        """The input called `name`; raises UnknownName."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise UnknownName("signature", "input", name, [s.name for s in self.inputs])

    @property
    def score(self) -> OutputSpec:
        """The output that candidates are ranked by."""
        return self.outputs[0]

    def check(self, feeds: dict[str, np.ndarray], *, where: str) -> None:
        """Raise InputError unless `feeds` holds exactly these inputs, with these dtypes, ranks and fixed sizes."""
        for name in feeds:
            self.input(name)
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            at = f"{where}: input '{spec.name}'"
            if spec.name not in feeds:
                raise InputError.mismatch(at, expected=f"a {spec.dtype} tensor", found="nothing", fix="send every input of the signature")
            array = feeds[spec.name]
            if array.dtype != np.dtype(spec.dtype):
                raise InputError.mismatch(at, expected=spec.dtype, found=str(array.dtype))
            if array.ndim != len(spec.shape):
                raise InputError.mismatch(at, expected=f"shape {list(spec.shape)}", found=f"{list(array.shape)}")
            for dim, size in zip(spec.shape, array.shape, strict=True):
                expected = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
                if size != expected:
                    raise InputError.mismatch(
                        at, expected=f"shape {list(spec.shape)} with {dim} = {expected}", found=f"{list(array.shape)}"
                    )
