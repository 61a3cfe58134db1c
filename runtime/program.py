"""What an exported PyTorch program takes and gives, as a Signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError
from ..core.signature import Dim, InputSpec, OutputSpec, Role, Signature

if TYPE_CHECKING:
    import torch

ROWS = "rows"
_FLAT = "a forward that takes tensors by name (no lists, tuples, dictionaries or constants)"
_WRAP = "wrap the model in one that takes plain tensors"


def signature_of(program: torch.export.ExportedProgram, where: str, roles: Mapping[str, Role] | None = None) -> Signature:
    """The signature of `program`, layout `rows`; inputs without a role are candidate inputs, which is right in this layout.

    Raises InputError when an argument is not a tensor or when the leading dimension is fixed or not shared.
    """
    _require_flat(program, where)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    names = list(program.graph_signature.user_inputs)
    shapes: dict[str, tuple[object, ...]] = {}
    dtypes: dict[str, str] = {}
    for name in names:
        value = values.get(name) if isinstance(name, str) else None
        if value is None or not hasattr(value, "dtype") or not isinstance(name, str):
            raise InputError.mismatch(where, expected=_FLAT, found=f"argument '{name}'", fix=_WRAP)
        shapes[name], dtypes[name] = tuple(value.shape), _dtype(value.dtype)
    if not shapes:
        raise InputError.mismatch(where, expected=_FLAT, found="no arguments")
    labels = _dim_names(shapes, where)
    inputs = tuple(
        InputSpec(name=name, dtype=dtypes[name], shape=_named(shape, labels), role=(roles or {}).get(name, "candidate"))
        for name, shape in shapes.items()
    )
    return Signature(inputs=inputs, outputs=_outputs(program, labels, where))


def _require_flat(program: torch.export.ExportedProgram, where: str) -> None:
    """PyTorch flattens containers into inputs of their own (`f_x` of f["x"]), which the module then cannot be called with."""
    positional, keywords = program.call_spec.in_spec.children() if program.call_spec.in_spec is not None else (None, None)
    for spec, names in ((positional, None), (keywords, keywords.context if keywords is not None else None)):
        for number, child in enumerate(spec.children() if spec is not None else []):
            if not child.is_leaf():
                argument = f"argument '{names[number]}'" if names else f"argument {number + 1}"
                kind = getattr(child.type, "__name__", str(child.type))
                raise InputError.mismatch(where, expected=_FLAT, found=f"{argument} as a {kind}", fix=_WRAP)


def by_position(program: torch.export.ExportedProgram, module: Callable[..., object]) -> Callable[..., object]:
    """`module` of this program, called with all inputs by position even where it was exported with keyword arguments."""
    children = program.call_spec.in_spec.children() if program.call_spec.in_spec is not None else []
    keywords = list(children[1].context or []) if len(children) == 2 else []
    if not keywords:
        return module

    def call(*inputs: object) -> object:
        split = len(inputs) - len(keywords)
        return module(*inputs[:split], **dict(zip(keywords, inputs[split:], strict=True)))

    return call


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
    if not values or any(not hasattr(value, "dtype") for value in values):
        raise InputError.mismatch(
            where, expected="a forward that returns tensors", found="something else", fix="return the scores as one tensor"
        )
    first = _named(tuple(values[0].shape), labels)
    if not first or isinstance(first[0], int) or any(size != 1 for size in first[1:]):
        raise InputError.mismatch(
            f"{where}: first output", expected="one score per row (shape [rows] or [rows, 1])", found=f"shape {list(first)}"
        )
    # PyTorch may only know the leading size as an expression of rows; that it is rows is checked by running the model.
    labels = {**labels, str(values[0].shape[0]): ROWS}
    names = ["score", *(f"output_{i}" for i in range(1, len(values)))]
    return tuple(
        OutputSpec(name=name, dtype=_dtype(value.dtype), shape=_named(tuple(value.shape), labels))
        for name, value in zip(names, values, strict=True)
    )


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
