"""`requests.parquet`: one row per request, the same file for latency (replayed) and quality (ranked lists).

Besides `request_id`, `user_id`, optional `segment` and `timestamp` and optional `label` (a list, one entry per candidate), the file has
a column per model input. How deep a column nests says its role: as deep as the input's row (a scalar for shape `[rows]`, a list for
`[rows, history]`) it is a *request* input, one level deeper it is a *candidate* input with one entry per candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from . import columns
from .errors import InputError, UnknownName
from .files import new_file, sha256_of
from .ids import wrong_id
from .signature import InputSpec, Role, Signature


class RequestsRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How results name the requests they were measured on; `note` says so when they were generated."""

    source: str
    sha256: str | None
    requests: int
    users: int
    generated: bool
    note: str = ""


class Requests:
    """Requests in memory, read-only, in file order."""

    def __init__(self, table: pa.Table, *, source: str, sha256: str | None = None, note: str = "") -> None:
        self.table = table
        self.source = source
        self._sha256 = sha256
        self._note = note
        self._validate()

    # -- reading and writing ---------------------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: Path) -> Requests:
        """Read a Parquet file; raises InputError when it is missing, not Parquet, empty or inconsistent."""
        if path.is_dir():
            raise InputError.mismatch(str(path), expected="one requests.parquet file", found="a folder", fix="join its files into one")
        try:
            table = pq.read_table(path)
        except FileNotFoundError:
            raise InputError.mismatch(str(path), expected="a requests.parquet file", found="nothing", fix="check the path") from None
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(str(path), f"is not a readable Parquet file ({reason})", fix="write it with pandas or pyarrow") from None
        return cls(table, source=str(path), sha256=sha256_of(path))

    @classmethod
    def load(cls, requests: Requests | Path | str) -> Requests:
        """The requests themselves, or those in a file: what every public function takes as `requests`."""
        return requests if isinstance(requests, Requests) else cls.read(Path(requests))

    @classmethod
    def of(cls, data: Mapping[str, Sequence[object]], *, source: str = "memory", note: str = "") -> Requests:
        """Requests from columns in memory; `note` marks them as generated and says how."""
        return cls(pa.table(dict(data)), source=source, note=note)

    def write(self, path: Path) -> None:
        """Write as Parquet, all or nothing."""
        with new_file(path) as temporary:
            pq.write_table(self.table, temporary, compression="zstd")

    def take(self, indices: Sequence[int]) -> Requests:
        """The requests at these positions, in this order."""
        taken = self.table.take(pa.array(indices, type=pa.int64()))
        return Requests(taken, source=self.source, sha256=self._sha256, note=self._note)

    # -- what is in it -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ref(self) -> RequestsRef:
        return RequestsRef(
            source=self.source,
            sha256=self._sha256,
            requests=len(self),
            users=len(set(self.user_ids)),
            generated=bool(self._note),
            note=self._note,
        )

    @property
    def request_ids(self) -> list[str]:
        return [str(v) for v in self.table[columns.REQUEST_ID].to_pylist()]

    @property
    def user_ids(self) -> list[str]:
        return [str(v) for v in self.table[columns.USER_ID].to_pylist()]

    @property
    def segments(self) -> list[str] | None:
        """Segment of every request, None when the file has none."""
        return [str(v) for v in self.table[columns.SEGMENT].to_pylist()] if columns.SEGMENT in self.table.column_names else None

    @property
    def labels(self) -> list[np.ndarray] | None:
        """float64 `[candidates]` per request, None when the file has none."""
        if columns.LABEL not in self.table.column_names:
            return None
        return [np.asarray(v, dtype=np.float64) for v in self.table[columns.LABEL].to_pylist()]

    @property
    def input_columns(self) -> list[str]:
        """The columns that are not about the request itself."""
        return [n for n in self.table.column_names if n not in columns.RESERVED]

    def roles(self, ranks: Mapping[str, int]) -> dict[str, Role]:
        """Role per input, read from how deep its column nests; `ranks` gives each input's tensor rank (rows included)."""
        return {name: self._role(name, rank) for name, rank in ranks.items()}

    def candidates(self, signature: Signature) -> list[int]:
        """Number of candidates per request."""
        names = [s.name for s in signature.inputs if self._role(s.name, len(s.shape)) == "candidate"]
        if names:
            return self._lengths(names[0])
        labels = self.labels
        return [len(v) for v in labels] if labels is not None else [1] * len(self)

    def check(self, signature: Signature) -> None:
        """Raise InputError unless every request can be fed to `signature`; names the column, and the request that shows it."""
        self.check_columns([s.name for s in signature.inputs])
        counts = self.candidates(signature)
        ids = self.request_ids
        for spec in signature.inputs:
            if self._role(spec.name, len(spec.shape)) == "candidate":
                for request, (length, count) in enumerate(zip(self._lengths(spec.name), counts, strict=True)):
                    if length != count:
                        at = f"{self.source}: request '{ids[request]}': column '{spec.name}'"
                        raise InputError.mismatch(at, expected=f"{count} candidates, as in the other columns", found=f"{length}")
                if spec.role == "request":
                    self._check_repeated(spec.name)
        for request, (label, count) in enumerate(zip(self.labels or [], counts, strict=False)):
            if len(label) != count:
                at = f"{self.source}: request '{ids[request]}': column '{columns.LABEL}'"
                raise InputError.mismatch(at, expected=f"{count} labels, one per candidate", found=f"{len(label)}")

    def never_varying(self, names: Sequence[str], signature: Signature) -> tuple[list[str], int]:
        """Those of the candidate columns `names` that hold one value throughout every request, and in how many requests that was seen."""
        several = [request for request, count in enumerate(self.candidates(signature)) if count > 1]
        if not several:
            return [], 0
        found = []
        for name in names:
            values = self.table[name].to_pylist()
            if all(_repeated(values[request]) for request in several):
                found.append(name)
        return found, len(several)

    def check_columns(self, inputs: Sequence[str]) -> None:
        """Raise UnknownName for a column that is neither one of these inputs nor a reserved name."""
        for name in self.input_columns:
            if name not in inputs:
                fix = "a column must be an input of the signature or one of the reserved names"
                raise UnknownName(self.source, "column", name, [*inputs, *columns.RESERVED], fix=fix)

    def restrict(self, signature: Signature) -> Requests:
        """The same requests without columns that `signature` does not take, for models whose inputs differ (check the union first)."""
        wanted = {*columns.RESERVED, *(s.name for s in signature.inputs)}
        kept = self.table.select([n for n in self.table.column_names if n in wanted])
        return Requests(kept, source=self.source, sha256=self._sha256, note=self._note)

    # -- feeding a model -----------------------------------------------------------------------------------------------------

    def feeds(self, signature: Signature) -> Iterator[dict[str, np.ndarray]]:
        """Input tensors per request, in the signature's layout: request inputs repeated for `rows`, leading dimension 1 for `request`."""
        self.check(signature)
        counts = self.candidates(signature)
        pulled = {s.name: self.table[s.name].to_pylist() for s in signature.inputs}
        deep = {s.name: self._role(s.name, len(s.shape)) == "candidate" for s in signature.inputs}
        for request, (request_id, count) in enumerate(zip(self.request_ids, counts, strict=True)):
            tensors = {}
            for spec in signature.inputs:
                value = pulled[spec.name][request]
                array = self._array(value if deep[spec.name] else [value], spec, request_id)
                if not deep[spec.name] and (signature.layout == "rows" or spec.role == "candidate"):
                    array = np.repeat(array, count, axis=0)
                elif deep[spec.name] and signature.layout == "request" and spec.role == "request":
                    array = array[:1]
                tensors[spec.name] = np.ascontiguousarray(array)
            yield tensors

    # -- inside ----------------------------------------------------------------------------------------------------------------

    def _array(self, value: object, spec: InputSpec, request_id: str) -> np.ndarray:
        at = f"{self.source}: request '{request_id}': column '{spec.name}'"
        try:
            array = np.asarray(value)
        except ValueError:
            raise InputError.mismatch(at, expected=f"lists of one length (shape {list(spec.shape)})", found="ragged lists") from None
        if array.dtype == object:
            raise InputError.mismatch(
                at, expected=f"{spec.dtype} values", found="missing values or text", fix="fill them before writing the file"
            )
        wanted = np.dtype(spec.dtype)
        if array.dtype.kind not in ("iub" if wanted.kind in "iub" else "iubf"):
            found = "text" if array.dtype.kind in "US" else str(array.dtype)
            raise InputError.mismatch(at, expected=spec.dtype, found=found)
        if wanted.kind in "iu" and array.size and not (np.iinfo(wanted).min <= array.min() and array.max() <= np.iinfo(wanted).max):
            found = f"{array.max() if array.max() > np.iinfo(wanted).max else array.min()}"
            raise InputError.mismatch(at, expected=f"values that fit {spec.dtype}", found=found)
        if array.ndim != len(spec.shape):
            raise InputError.mismatch(at, expected=f"shape {list(spec.shape)}", found=f"{list(array.shape)}")
        for dim, size in zip(spec.shape[1:], array.shape[1:], strict=True):
            if isinstance(dim, int) and dim != size:
                raise InputError.mismatch(at, expected=f"shape {list(spec.shape)}", found=f"{list(array.shape)}")
        wrong = wrong_id(spec, array)
        if wrong is not None:
            fix = "map unknown ids to the row the model was trained with for them"
            raise InputError.mismatch(f"{at}{wrong.place}", expected=wrong.expected, found=wrong.found, fix=fix)
        return array.astype(spec.dtype, copy=False)

    def _check_repeated(self, name: str) -> None:
        """A request input may be written once per candidate, but then with one value throughout the request."""
        for request_id, value in zip(self.request_ids, self.table[name].to_pylist(), strict=True):
            if not _repeated(value):
                raise InputError.mismatch(
                    f"{self.source}: request '{request_id}': column '{name}'",
                    expected="one value per request (the signature says role request)",
                    found="candidates with different values",
                    fix="make the column one level less nested, or export the model with this input as a candidate input",
                )

    def _lengths(self, name: str) -> list[int]:
        """Number of entries per request of a list column; a missing list has none."""
        lengths = pc.fill_null(pc.list_value_length(self.table[name]), 0).to_pylist()
        return [int(length) for length in lengths if length is not None]

    def _role(self, name: str, rank: int) -> Role:
        if name not in self.table.column_names:
            raise UnknownName(self.source, "column", name, self.input_columns, fix=f"the model needs an input '{name}'")
        depth = 0
        kind = self.table.schema.field(name).type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            kind, depth = kind.value_type, depth + 1
        if depth == rank - 1:
            return "request"
        if depth == rank:
            return "candidate"
        expected = f"lists nested {rank - 1} deep (one value per request) or {rank} deep (one per candidate)"
        raise InputError.mismatch(f"{self.source}: column '{name}'", expected=expected, found=f"{depth} deep")

    def _validate(self) -> None:
        for required in (columns.REQUEST_ID, columns.USER_ID):
            if required not in self.table.column_names:
                raise InputError.mismatch(
                    self.source, expected=f"a column '{required}'", found=", ".join(self.table.column_names) or "no columns"
                )
            if self.table[required].null_count:
                raise InputError.mismatch(f"{self.source}: column '{required}'", expected="a value in every row", found="missing values")
        if not len(self):
            raise InputError.mismatch(self.source, expected="at least one request", found="none")
        ids = self.request_ids
        if len(set(ids)) != len(ids):
            raise InputError.mismatch(f"{self.source}: column '{columns.REQUEST_ID}'", expected="unique ids", found="repeated ones")
        if columns.SEGMENT in self.table.column_names:
            self._validate_segments()
        if columns.LABEL in self.table.column_names:
            kind = self.table.schema.field(columns.LABEL).type
            if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
                raise InputError.mismatch(
                    f"{self.source}: column '{columns.LABEL}'", expected="a list with one entry per candidate", found=str(kind)
                )
            entry = kind.value_type
            if not (pa.types.is_integer(entry) or pa.types.is_floating(entry) or pa.types.is_boolean(entry)):
                raise InputError.mismatch(
                    f"{self.source}: column '{columns.LABEL}'", expected="a list of numbers", found=f"a list of {entry}"
                )
            values = pc.list_flatten(self.table[columns.LABEL]).to_numpy().astype(np.float64)
            if self.table[columns.LABEL].null_count or not np.isfinite(values).all():
                raise InputError.mismatch(
                    f"{self.source}: column '{columns.LABEL}'", expected="finite numbers", found="NaN or missing values"
                )

    def _validate_segments(self) -> None:
        at = f"{self.source}: column '{columns.SEGMENT}'"
        if self.table[columns.SEGMENT].null_count:
            raise InputError.mismatch(
                at, expected="a segment in every row", found="missing values", fix="name the rest, for example 'other'"
            )
        if columns.ALL_SEGMENTS in (self.segments or []):
            raise InputError.mismatch(at, expected=f"names other than '{columns.ALL_SEGMENTS}', which means everyone", found="that name")


def _repeated(entries: Sequence[object] | None) -> bool:
    """Whether all entries are the same."""
    return not entries or all(entry == entries[0] for entry in entries[1:])
