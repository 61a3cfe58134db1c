"""Example inputs for a module in memory: given by the caller, read from an .npz file, or taken from requests."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ...core import columns
from ...core.errors import InputError, UnknownName
from ...core.requests import Requests
from ...core.signature import InputSpec, Role, Signature
from ..samples import from_requests

if TYPE_CHECKING:
    import torch

_DTYPES = {"i": "int64", "u": "int64", "b": "bool", "f": "float32"}
_EXPORT_ROWS = (7, 11, 13, 17, 19, 23)


class Examples(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments to call a forward with.

    `roles` holds what the requests say of the flat inputs, by name, and `note` says where the values come from.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    note: str
    roles: dict[str, Role] = {}


def examples_for(
    module: torch.nn.Module,
    *,
    where: str,
    given: object = None,
    requests: Requests | None = None,
    request_inputs: Sequence[str] | None = None,
) -> Examples:
    """Example inputs for `module` from `given` (positional tuple, mapping by name, one tensor, or the path of an .npz), else from requests.

    Raises InputError when there are none, or when they do not fit the forward's parameters.
    """
    parameters = parameters_of(module)
    if isinstance(given, str | Path):
        return arranged(_read_npz(Path(given)), parameters, where, note=f"examples in {Path(given).name}")
    if given is not None:
        return _given(given, parameters, where)
    if requests is None:
        fix = "give --requests sample.parquet or --examples inputs.npz (or example_inputs=...), or save the model with liftgate.save"
        raise InputError.mismatch(where, expected="example inputs to export a module with", found="none", fix=fix)
    signature = _guess(requests, request_inputs, parameters, where)
    tensors = {name: _tensor(array) for name, array in from_requests(requests, signature).rows(_EXPORT_ROWS[0]).items()}
    found = arranged(tensors, parameters, where, note=f"rows of {Path(requests.source).name}")
    return msgspec.structs.replace(found, roles={spec.name: spec.role for spec in signature.inputs})


def parameters_of(module: torch.nn.Module) -> list[str]:
    """Names of the arguments of `forward`; `*args` and `**kwargs` are left out."""
    import torch  # noqa: PLC0415 - takes seconds

    if isinstance(module, torch.jit.ScriptModule):
        schema = module.forward.schema  # type: ignore[attr-defined]  # a script's forward is a ScriptMethod
        return [argument.name for argument in schema.arguments[1:]]
    skip = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in inspect.signature(module.forward).parameters.values() if p.kind not in skip]


def same_rows(tensors: Mapping[str, torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """The tensors with one number of rows, repeated or cut: a prime that is no other dimension, so that nothing else is taken for rows.

    Raises InputError for a tensor without dimensions, and when the leading dimensions differ.
    """
    lengths = {}
    for name, tensor in tensors.items():
        if not tensor.ndim or not len(tensor):
            found = "a tensor without dimensions" if not tensor.ndim else "no rows"
            raise InputError.mismatch(f"{where}: example input '{name}'", expected="a tensor [rows, ...]", found=found)
        lengths[name] = len(tensor)
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        fix = "give every input one row per candidate; repeat what belongs to the request"
        raise InputError.mismatch(f"{where}: example inputs", expected="the same number of rows in every input", found=found, fix=fix)
    others = {size for tensor in tensors.values() for size in tensor.shape[1:]}
    rows = next((rows for rows in _EXPORT_ROWS if rows not in others), _EXPORT_ROWS[-1])
    return {name: take_rows(tensor, rows) for name, tensor in tensors.items()}


def take_rows(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """The first `rows` rows, from the start again when there are fewer."""
    import torch  # noqa: PLC0415 - takes seconds

    return tensor.detach()[torch.arange(rows) % len(tensor)].clone()


def _given(given: object, parameters: Sequence[str], where: str, *, note: str = "the example inputs") -> Examples:
    """What the caller gave: a mapping whose keys are parameters is arguments by name, another mapping the one argument itself."""
    from torch.utils._pytree import tree_map_only  # noqa: PLC0415 - torch takes seconds

    given = tree_map_only(np.ndarray, _tensor, given)
    if not isinstance(given, Mapping):
        return Examples(args=tuple(given) if isinstance(given, tuple | list) else (given,), kwargs={}, note=note)
    if all(name in parameters for name in given):
        ordered = {name: given[name] for name in parameters if name in given}
        # By position where nothing is left out between: programs with keyword arguments are harder to use.
        positional = list(ordered) == list(parameters[: len(ordered)])
        return Examples(args=tuple(ordered.values()) if positional else (), kwargs={} if positional else ordered, note=note)
    if len(parameters) == 1:
        return Examples(args=(dict(given),), kwargs={}, note=note)
    unknown = next(str(name) for name in given if name not in parameters)
    raise UnknownName(note, "input", unknown, parameters, fix=f"forward of {where} takes {', '.join(parameters)}")


def _read_npz(path: Path) -> dict[str, torch.Tensor]:
    """Arrays by name; raises InputError for anything but plain arrays (nothing is unpickled)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError.mismatch(str(path), expected="an .npz file (np.savez(path, name=array, ...))", found="a single array")
            return {name: _tensor(_single(file[name])) for name in file.files}
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="an .npz file of example inputs", found="nothing", fix="check the path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(str(path), f"is no readable .npz file ({reason[:160]})", fix="write it with np.savez(path, name=array)") from None


def _single(array: np.ndarray) -> np.ndarray:
    """numpy writes float64 unless told otherwise; models take float32."""
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _tensor(array: np.ndarray) -> torch.Tensor:
    import torch  # noqa: PLC0415 - takes seconds

    if array.dtype.kind not in "iubf":
        raise InputError.mismatch("example inputs", expected="numbers", found=str(array.dtype))
    return torch.from_numpy(np.ascontiguousarray(array))


def arranged(flat: Mapping[str, torch.Tensor], parameters: Sequence[str], where: str, *, note: str) -> Examples:
    """Flat names laid out as the forward takes them: `user`, `features.user`, or `user` inside the only argument."""
    if not flat:
        raise InputError.mismatch(note, expected=f"a value per input of {where} ({', '.join(parameters)})", found="none")
    return _given(_nested(flat), parameters, where, note=note)


def _nested(flat: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """`{"f.user": u, "f.0": v}` as nested dictionaries; a level whose keys are 0, 1, 2 … is a tuple."""
    tree: dict[str, Any] = {}
    for name, tensor in flat.items():
        *parents, last = name.split(".")
        level = tree
        for part in parents:
            level = level.setdefault(part, {})
            if not isinstance(level, dict):
                raise InputError.mismatch(f"input '{name}'", expected="a name that starts no other path", found=f"'{part}' twice")
        level[last] = tensor
    return {name: _tuples(value) for name, value in tree.items()}


def _tuples(value: object) -> object:
    if not isinstance(value, dict):
        return value
    inner = {name: _tuples(one) for name, one in value.items()}
    return tuple(inner[str(i)] for i in range(len(inner))) if sorted(inner) == sorted(map(str, range(len(inner)))) else inner


def _guess(requests: Requests, request_inputs: Sequence[str] | None, parameters: Sequence[str], where: str) -> Signature:
    """A signature that fits the requests' columns."""
    found = [name for name in requests.table.column_names if name not in columns.RESERVED or name in parameters]
    used = _used(requests, found, parameters, where)
    for name in request_inputs or ():
        if name not in used:
            raise UnknownName(requests.source, "request input", name, used)
    counts = [len(v) for v in requests.labels] if requests.labels is not None else None
    specs = []
    for name in used:
        values = requests.table[name].to_pylist()
        role = _guess_role(name, values, counts, request_inputs, requests.source)
        specs.append(_spec(name, values, role, requests.source, per_candidate=role == "candidate" or _repeats(values, counts)))
    return Signature(inputs=tuple(specs), outputs=())


def _used(requests: Requests, found: Sequence[str], parameters: Sequence[str], where: str) -> list[str]:
    """The columns to feed, in the forward's order; every other column that is not reserved is an error."""
    heads = {name.partition(".")[0] for name in found}
    if len(parameters) == 1 and not heads & set(parameters):
        if not found:
            raise InputError.mismatch(
                requests.source, expected=f"a column per input of {where} ({', '.join(parameters)})", found="none of them"
            )
        return list(found)
    for name in requests.input_columns:
        if name.partition(".")[0] not in parameters:
            raise UnknownName(requests.source, "column", name, parameters, fix=f"forward of {where} takes {', '.join(parameters)}")
    used = [name for parameter in parameters for name in found if name.partition(".")[0] == parameter]
    if not used:
        expected = f"a column per input of {where} ({', '.join(parameters)})"
        raise InputError.mismatch(requests.source, expected=expected, found="none of them")
    return used


def _repeats(values: Sequence[object], counts: Sequence[int] | None) -> bool:
    """Whether a request input is written once per candidate: lists as long as the labels, of one value throughout."""
    lists = [value for value in values if isinstance(value, list)]
    as_long = counts is not None and [len(value) for value in lists] == list(counts)
    return as_long and max(counts or [0]) > 1 and all(entry == value[0] for value in lists for entry in value[1:])


def _spec(name: str, values: Sequence[object], role: Role, source: str, *, per_candidate: bool) -> InputSpec:
    """Dtype and trailing sizes of one column; a size that differs between requests is a dimension that varies."""
    sizes: list[set[int]] = []
    kinds: set[str] = set()
    for value in values:
        array = _array(value if per_candidate else [value], f"{source}: column '{name}'")
        kinds.add(array.dtype.kind)
        for axis, size in enumerate(array.shape[1:]):
            sizes.extend([set()] * (axis + 1 - len(sizes)))
            sizes[axis] = sizes[axis] | {size}
    dtype = "float32" if "f" in kinds else _DTYPES.get(next(iter(kinds), "O"), "")
    if not dtype:
        raise InputError.mismatch(f"{source}: column '{name}'", expected="numbers", found="text, ragged lists or missing values")
    shape = ("rows", *(next(iter(found)) if len(found) == 1 else f"{name}_{axis + 1}" for axis, found in enumerate(sizes)))
    return InputSpec(name=name, dtype=dtype, shape=shape, role=role)


def _array(value: object, where: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:
        fix = "pad the lists of one request to one length"
        raise InputError.mismatch(where, expected="lists of one length within a request", found="ragged lists", fix=fix) from None


def _guess_role(
    name: str, values: Sequence[object], counts: Sequence[int] | None, request_inputs: Sequence[str] | None, where: str
) -> Role:
    """A column of lists is a candidate input when its lists are as long as the labels, or when the user says so by not listing it."""
    if request_inputs is not None:
        return "request" if name in request_inputs else "candidate"
    if not isinstance(values[0], list):
        return "request"
    if counts is None:
        fix = "say which inputs have one value per request: --request-inputs user,history"
        raise InputError.mismatch(
            f"{where}: column '{name}'", expected="a column 'label' to count the candidates by", found="none", fix=fix
        )
    return "candidate" if [len(v) for v in values if isinstance(v, list)] == list(counts) else "request"
