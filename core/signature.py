"""What a model takes and gives: named tensors with roles and a layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from .errors import InputError, UnknownName

Role = Literal["request", "candidate"]
Layout = Literal["rows", "request"]
Dim = int | str

DTYPES: tuple[str, ...] = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


class IdColumn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ids inside an input: in `column` of its last axis, of a table with `rows_of_table` rows where that is known.

    `column` None says that ids are somewhere among the input's values and that nothing tells where.
    """

    column: int | None
    rows_of_table: int | None = None


class InputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input tensor.

    `shape` has a name for every dimension that varies (`"rows"`, `"history"`) and a size for every one that does not.
    `role` is `request` (one value per request: user, context, history) or `candidate` (one per item to be scored).
    `rows_of_table` is the number of rows of the embedding table that every value of this input indexes, when that is known.
    `id_columns` says which columns of the last axis hold ids where not all of them do, or not of the same table: a matrix that carries
    ids between other numbers, as DeepCTR's models take it.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    role: Role
    rows_of_table: int | None = None
    id_columns: tuple[IdColumn, ...] = ()

    def __post_init__(self) -> None:
        at = f"input '{self.name}'"
        if self.dtype not in DTYPES:
            raise UnknownName(at, "dtype", self.dtype, DTYPES)
        if not self.shape:
            raise InputError.mismatch(at, expected="at least one dimension (rows)", found="a scalar")
        width = self.shape[-1] if len(self.shape) > 1 else None
        for column in self.id_columns:
            if column.column is not None and not (isinstance(width, int) and 0 <= column.column < width):
                expected = "a column of the last axis, which has a fixed size"
                raise InputError.mismatch(f"{at}: id column {column.column}", expected=expected, found=f"shape {list(self.shape)}")

    @property
    def holds_ids(self) -> bool:
        """Whether some of its values are ids: a step that puts numbers through half precision has to leave this input out."""
        return self.rows_of_table is not None or bool(self.id_columns)


class OutputSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output tensor; `shape` as for an input."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    @property
    def per_row(self) -> bool:
        """Whether it holds one number per row: `[rows]` or `[rows, 1, ...]`."""
        return bool(self.shape) and isinstance(self.shape[0], str) and all(size == 1 for size in self.shape[1:])


class Score(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What candidates are ranked by: an output, or one column of it (`column` of the last axis) where a model has several tasks."""

    output: str
    column: int | None = None

    @property
    def text(self) -> str:
        """As a person writes it: `score`, `ctr[0]`."""
        return self.output if self.column is None else f"{self.output}[{self.column}]"


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Inputs and outputs of a ranker.

    In layout `rows` every input has one row per candidate, request inputs repeated, as training code writes it; in layout
    `request` the request inputs have leading dimension 1 and the candidate inputs N. `ranked_by` is what the user chose as the score;
    None means the first output, where that has one number per row.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    layout: Layout = "rows"
    ranked_by: Score | None = None

    def input(self, name: str) -> InputSpec:
        """The input called `name`; raises UnknownName."""
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise UnknownName("signature", "input", name, [s.name for s in self.inputs])

    def output(self, name: str) -> OutputSpec:
        """The output called `name`; raises UnknownName."""
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise UnknownName("signature", "output", name, [s.name for s in self.outputs])

    @property
    def score(self) -> Score | None:
        """What candidates are ranked by; None for a model of several tasks or a retrieval model whose user has not said."""
        if self.ranked_by is not None:
            return self.ranked_by
        return Score(output=self.outputs[0].name) if self.outputs and self.outputs[0].per_row else None

    def scores(self, outputs: Mapping[str, np.ndarray], *, where: str) -> np.ndarray:
        """Ranking scores, float64 `[rows]`, from a model's outputs; raises InputError when nothing says what to rank by."""
        score = self.score
        if score is None:
            found = ", ".join(f"{o.name} {list(o.shape)}" for o in self.outputs)
            fix = "export it with --score OUTPUT or --score 'OUTPUT[COLUMN]' to say what candidates are ranked by"
            raise InputError.mismatch(where, expected="an output with one score per row", found=found, fix=fix)
        array = np.asarray(outputs[score.output], dtype=np.float64)
        return (array if score.column is None else array[..., score.column]).reshape(-1)

    def with_score(self, text: str, *, where: str) -> Signature:
        """This signature ranked by `text` (`ctr`, `score[1]`); raises InputError when that is not one number per row."""
        match = re.fullmatch(r"(.+?)(?:\[(-?\d{1,6})\])?", text)
        if match is None:
            raise InputError.mismatch(f"{where}: --score", expected="OUTPUT or OUTPUT[COLUMN]", found=repr(text))
        spec = next((spec for spec in self.outputs if spec.name == match[1]), None)
        if spec is None:
            known = [spec.name for spec in self.outputs]
            raise UnknownName(f"{where}: --score", "output", match[1], known, fix=f"outputs: {', '.join(known)}")
        column = None if match[2] is None else int(match[2])
        last = spec.shape[-1] if len(spec.shape) > 1 else 1
        one_per_row = spec.per_row if column is None else len(spec.shape) > 1 and all(size == 1 for size in spec.shape[1:-1])
        if not one_per_row or (column is not None and isinstance(last, int) and not -last <= column < last):
            fix = f"choose a column of its last axis: --score '{spec.name}[0]'" if column is None else "choose another output or column"
            raise InputError.mismatch(f"{where}: --score {text}", expected="one number per row", found=f"shape {list(spec.shape)}", fix=fix)
        return msgspec.structs.replace(self, ranked_by=Score(output=spec.name, column=column))

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
            once = self.layout == "request" and spec.role == "request"
            for dim, size in zip((1, *spec.shape[1:]) if once else spec.shape, array.shape, strict=True):
                expected = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
                if size != expected:
                    raise InputError.mismatch(
                        at, expected=f"shape {list(spec.shape)} with {dim} = {expected}", found=f"{list(array.shape)}"
                    )


def stated(signature: Signature) -> dict[str, object]:
    """`signature` as digests see it: what came after the first version is left out where it says nothing, so that older digests hold."""
    body: dict[str, object] = msgspec.to_builtins(signature)
    body["inputs"] = [{k: v for k, v in spec.items() if k != "id_columns" or v} for spec in msgspec.to_builtins(signature.inputs)]
    return {key: value for key, value in body.items() if key != "ranked_by" or value is not None}
