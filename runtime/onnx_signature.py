"""What a model that is ONNX already takes and gives, as a Signature."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from ..core.errors import InputError
from ..core.signature import Dim, InputSpec, OutputSpec, Signature
from .program import ROWS

_DTYPES = {
    **{ir.DataType.FLOAT: "float32", ir.DataType.DOUBLE: "float64", ir.DataType.FLOAT16: "float16", ir.DataType.BOOL: "bool"},
    **{
        ir.DataType.INT64: "int64",
        ir.DataType.INT32: "int32",
        ir.DataType.INT16: "int16",
        ir.DataType.INT8: "int8",
        ir.DataType.UINT8: "uint8",
    },
}


def signature_from_graph(model: ir.Model, where: str) -> Signature:
    """The signature of a model that is ONNX already, its inputs taken as candidate inputs; their leading dimension is `rows`.

    Raises InputError where a leading dimension is fixed, or has another name than that of the first input that names it.
    """
    leading: str | None = None
    labels: dict[str, str] = {}
    for value in model.graph.inputs:
        at = f"{where}: input '{value.name}'"
        if value.shape is None or not len(value.shape) or isinstance(value.shape[0], int) or value.dtype not in _DTYPES:
            fix = "export it with a leading dimension that varies"
            found = f"shape {value.shape}, {value.dtype}"
            raise InputError.mismatch(at, expected="a tensor [rows, ...] with rows varying", found=found, fix=fix)
        first = value.shape[0].value
        if first is not None and leading not in {None, first}:
            fix = "export it with one name for the leading dimension of every input"
            raise InputError.mismatch(at, expected=f"the leading dimension '{leading}', as the other inputs", found=f"'{first}'", fix=fix)
        leading = leading or first
    if leading is not None:
        labels[leading] = ROWS
    for value in model.graph.inputs:
        for axis, dim in enumerate(value.shape or ()):
            if not isinstance(dim, int) and dim.value is not None:
                labels.setdefault(dim.value, f"{value.name}_{axis}")

    def shape(value: ir.Value) -> tuple[Dim, ...]:
        return tuple(_dim(dim, axis, value.name or "", labels) for axis, dim in enumerate(value.shape or ()))

    return Signature(
        inputs=tuple(
            InputSpec(name=v.name or "", dtype=_DTYPES[v.dtype], shape=shape(v), role="candidate") for v in model.graph.inputs if v.dtype
        ),
        outputs=tuple(
            OutputSpec(name=v.name or "", dtype=_DTYPES[v.dtype], shape=shape(v)) for v in model.graph.outputs if v.dtype in _DTYPES
        ),
    )


def _dim(dim: int | ir.SymbolicDim, axis: int, owner: str, labels: Mapping[str, str]) -> Dim:
    """Our name for a dimension; one without a name is a dimension of its own, unless it is the leading one."""
    if isinstance(dim, int):
        return dim
    if dim.value is None:
        return f"{owner}_{axis}" if axis else ROWS
    return labels.get(dim.value, dim.value)
