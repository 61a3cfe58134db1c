"""What an exported PyTorch program takes and gives, as a Signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.signature import Dim, InputSpec, OutputSpec, Role, Signature
from .calling import Calling, calling_of_program, output_names

if TYPE_CHECKING:
    import torch

ROWS = "rows"


def signature_of(
    program: torch.export.ExportedProgram, where: str, roles: Mapping[str, Role] | None = None, names: Sequence[str] | None = None
) -> Signature:
    """The signature of `program`, layout `rows`; inputs without a role are candidate inputs, which is right in this layout.

    Inputs are called `names`, or by their paths (see `calling_of_program`). Raises InputError when an argument is not a tensor or when the
    leading dimension is fixed or not shared.
    """
    calling = calling_of_program(program, where=where)
    values = tensors_of(program, calling)
    named = dict(zip(names or calling.names, values, strict=True))
    if not named:
        raise InputError.mismatch(where, expected="a forward that takes tensors", found="no arguments")
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    labels = _dim_names(shapes, where)
    inputs = tuple(
        InputSpec(name=name, dtype=_dtype(value.dtype), shape=_named(shapes[name], labels), role=(roles or {}).get(name, "candidate"))
        for name, value in named.items()
    )
    return Signature(inputs=inputs, outputs=_outputs(program, labels, where))


def tensors_of(program: torch.export.ExportedProgram, calling: Calling) -> list[Any]:
    """The (fake) tensors that stand for the program's inputs, in the order of `calling.names`."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    given = list(program.graph_signature.user_inputs)
    return [values[str(given[position])] for position in calling.tensors]


def _dim_names(shapes: Mapping[str, tuple[object, ...]], where: str) -> dict[str, str]:
    """Our name for each of PyTorch's symbols: `rows` for the leading one, `<input>_<axis>` for others."""
    labels: dict[str, str] = {}
    for name, shape in shapes.items():
        at = f"{where}: input '{name}'"
        fix = "export with dynamic_shapes={'" + name + "': {0: torch.export.Dim('rows')}, ...} for every input"
        if not shape or isinstance(shape[0], int):
            found = f"a fixed size of {shape[0]}" if shape else "a scalar"
            raise InputError.mismatch(at, expected="a leading dimension that varies (rows)", found=found, fix=fix)
        if labels and str(shape[0]) not in labels:
            raise InputError.mismatch(at, expected="the same leading dimension as the other inputs", found=str(shape[0]), fix=fix)
        labels.setdefault(str(shape[0]), ROWS)
    for name, shape in shapes.items():
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                labels.setdefault(str(size), f"{name}_{axis}")
    return labels


def _named(shape: tuple[object, ...], labels: Mapping[str, str]) -> tuple[Dim, ...]:
    return tuple(size if isinstance(size, int) else labels.get(str(size), str(size)) for size in shape)


def _outputs(program: torch.export.ExportedProgram, labels: Mapping[str, str], where: str) -> tuple[OutputSpec, ...]:
    last = next(node for node in program.graph.nodes if node.op == "output")
    values: list[Any] = [getattr(node, "meta", {}).get("val") for node in last.args[0]]
    user = values[len(values) - len(program.graph_signature.user_outputs) :]
    present = [hasattr(value, "dtype") for value in user]
    if not any(present):
        raise InputError.mismatch(
            where, expected="a forward that returns tensors", found="something else", fix="return the scores as one tensor"
        )
    found = [value for value, there in zip(user, present, strict=True) if there]
    names = output_names(program.call_spec.out_spec, present)
    first = tuple(found[0].shape)
    if first and not isinstance(first[0], int):
        # PyTorch may only know the leading size as an expression of rows; that it is rows is checked by running the model.
        labels = {**labels, str(first[0]): ROWS}
    return tuple(
        OutputSpec(name=name, dtype=_dtype(value.dtype), shape=_named(tuple(value.shape), labels))
        for name, value in zip(names, found, strict=True)
    )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
