"""From a module in memory to an exported program: example inputs, and which dimensions vary."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import InputError, UnknownName
from ..core.requests import Requests
from ..core.signature import InputSpec, Role, Signature
from ..runtime.archive import quiet
from .loading import Module
from .samples import Samples, from_requests

if TYPE_CHECKING:
    import torch

_DTYPES = {"i": "int64", "u": "int64", "b": "bool", "f": "float32"}


def trace(
    source: Module, requests: Requests | None, request_inputs: Sequence[str] | None, example_inputs: object
) -> torch.export.ExportedProgram:
    """Export `source` with rows that vary; other dimensions vary where the requests show that they do.

    Example inputs are `example_inputs` (tensors by position or by name) or rows of the requests. Raises InputError when neither is given or
    when the model fixes its number of rows.
    """
    import torch  # noqa: PLC0415 - takes seconds

    names = _forward_names(source)
    varying: set[tuple[str, int]] = set()
    if example_inputs is not None:
        examples = _named_examples(example_inputs, names, source.where)
    elif requests is not None:
        signature, varying = _guess(requests, names, request_inputs, source.where)
        examples = {n: torch.from_numpy(a) for n, a in from_requests(requests, signature).rows(7).items()}
    else:
        fix = "give --requests sample.parquet (or example_inputs=...), or save the model with torch.export.save"
        raise InputError.mismatch(source.where, expected="example inputs to export a module with", found="none", fix=fix)
    return _export(source, examples, varying)


def trace_like(source: Module, signature: Signature, samples: Samples) -> torch.export.ExportedProgram:
    """Export `source` once more, for a signature that is known and with sample rows at hand."""
    import torch  # noqa: PLC0415 - takes seconds

    rows = samples.rows(7)
    examples = {spec.name: torch.from_numpy(rows[spec.name]) for spec in signature.inputs}
    varying = {(spec.name, axis) for spec in signature.inputs for axis, dim in enumerate(spec.shape) if axis and isinstance(dim, str)}
    return _export(source, examples, varying)


def _export(source: Module, examples: dict[str, torch.Tensor], varying: set[tuple[str, int]]) -> torch.export.ExportedProgram:
    import torch  # noqa: PLC0415 - takes seconds

    rows = torch.export.Dim("rows", min=1)
    shapes = {
        name: {axis: rows if axis == 0 else torch.export.Dim.AUTO for axis in range(array.ndim) if axis == 0 or (name, axis) in varying}
        for name, array in examples.items()
    }
    module = source.module.eval()
    # By position where nothing is left out between: programs with keyword arguments are harder to use.
    names = _forward_names(source)
    positional = list(examples) == names[: len(examples)]
    args, kwargs = (tuple(examples.values()), {}) if positional else ((), dict(examples))
    with quiet():
        try:
            return torch.export.export(module, args, kwargs=kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # the user's forward may raise anything
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = next((line for line in lines if "rows" in line and "constant" in line), lines[0])
            fix = "the model must work for any number of rows and without Python branches on its inputs"
            raise InputError(source.where, f"torch.export cannot export it ({reason[:300]})", fix=fix) from error


def _forward_names(source: Module) -> list[str]:
    parameters = inspect.signature(source.module.forward).parameters.values()
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise InputError.mismatch(f"{source.where}: forward", expected="named tensor arguments", found="*args or **kwargs", fix="name them")
    return [p.name for p in parameters]


def _named_examples(given: object, names: Sequence[str], where: str) -> dict[str, torch.Tensor]:
    import torch  # noqa: PLC0415 - takes seconds

    if isinstance(given, Mapping):
        pairs = dict(given)
    else:
        values = list(given) if isinstance(given, tuple | list) else [given]
        pairs = dict(zip(names, values, strict=False))
    for name, value in pairs.items():
        if name not in names:
            raise UnknownName(f"{where}: forward", "input", name, names)
        if not isinstance(value, torch.Tensor) or value.ndim == 0:
            raise InputError.mismatch(f"{where}: example input '{name}'", expected="a tensor [rows, ...]", found=type(value).__name__)
        if len(value) == 1:
            # One row would tell torch.export that there is always one.
            pairs[name] = value.repeat_interleave(2, dim=0)
    return {name: pairs[name] for name in names if name in pairs}


def _guess(
    requests: Requests, names: Sequence[str], request_inputs: Sequence[str] | None, where: str
) -> tuple[Signature, set[tuple[str, int]]]:
    """A signature that fits the requests' columns, and the dimensions whose size differs between requests."""
    columns = requests.input_columns
    for name in columns:
        if name not in names:
            raise UnknownName(requests.source, "column", name, [*names], fix=f"forward of {where} takes {', '.join(names)}")
    used = [name for name in names if name in columns]
    if not used:
        raise InputError.mismatch(requests.source, expected=f"a column per input of {where} ({', '.join(names)})", found="none of them")
    for name in request_inputs or ():
        if name not in columns:
            raise UnknownName(requests.source, "request input", name, columns)
    values = {name: requests.table[name].to_pylist() for name in used}
    counts = [len(v) for v in requests.labels] if requests.labels is not None else None
    specs, varying = [], set()
    for name in used:
        role = _guess_role(name, values[name], counts, request_inputs, requests.source)
        sizes: list[set[int]] = []
        kinds: set[str] = set()
        for value in values[name]:
            array = _array(value if role == "candidate" else [value], f"{requests.source}: column '{name}'")
            kinds.add(array.dtype.kind)
            for axis, size in enumerate(array.shape[1:]):
                sizes.extend([set()] * (axis + 1 - len(sizes)))
                sizes[axis] = sizes[axis] | {size}
        dtype = "float32" if "f" in kinds else _DTYPES.get(next(iter(kinds), "O"), "")
        if not dtype:
            raise InputError.mismatch(
                f"{requests.source}: column '{name}'", expected="numbers", found="text, ragged lists or missing values"
            )
        varying |= {(name, axis + 1) for axis, found in enumerate(sizes) if len(found) > 1}
        shape = ("rows", *(next(iter(found)) if len(found) == 1 else f"{name}_{axis + 1}" for axis, found in enumerate(sizes)))
        specs.append(InputSpec(name=name, dtype=dtype, shape=shape, role=role))
    return Signature(inputs=tuple(specs), outputs=()), varying


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
