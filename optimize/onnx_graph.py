"""From an exported program to a tidy ONNX file, and what can be read off one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ..core.errors import InputError
from ..core.signature import Dim, InputSpec, OutputSpec, Signature
from ..runtime.archive import quiet
from ..runtime.onnx_file import load as load  # noqa: PLC0414 - callers know it from here
from ..runtime.program import ROWS
from .squeezes import mend_squeezes
from .tables import with_tables as with_tables  # noqa: PLC0414 - callers know it from here

if TYPE_CHECKING:
    import torch

_EXTERNAL_ABOVE_BYTES = 2**30
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


def to_onnx(program: torch.export.ExportedProgram, signature: Signature, where: str) -> ir.Model:
    """Convert with PyTorch's exporter; tensors are named as in `signature`, dims too, and nothing names the author's files."""
    import torch  # noqa: PLC0415 - takes seconds

    with quiet():
        try:
            converted = torch.onnx.export(
                program,
                (),
                dynamo=True,
                verbose=False,
                input_names=[s.name for s in signature.inputs],
                output_names=[s.name for s in signature.outputs],
            )
        except Exception as error:  # the exporter wraps whatever an operator's conversion raised
            fix = "replace the operator it names; see https://pytorch.org/docs/stable/onnx_export.html"
            raise InputError(where, f"torch.onnx cannot convert it ({_innermost(error)})", fix=fix) from error
    if converted is None:
        raise InputError(where, "torch.onnx gave no model", fix="run torch.onnx.export(program, (), dynamo=True) to see why")
    model = converted.model
    mend_squeezes(model)
    named = [(s.name, s.shape) for s in signature.inputs] + [(s.name, s.shape) for s in signature.outputs]
    for value, (name, shape) in zip([*model.graph.inputs, *model.graph.outputs], named, strict=True):
        value.name = name
        value.shape = ir.Shape(shape)
    _tidy(model)
    return model


def _innermost(error: BaseException) -> str:
    """The first line of the error that the others were raised from: the exporter wraps it in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next((line.strip() for line in str(error).splitlines() if line.strip()), '')[:300]}"


def _tidy(model: ir.Model) -> None:
    """Drop what only debugging needs: stack traces hold folder names, and they would make equal models differ."""
    for holder in (model, model.graph):
        holder.metadata_props.clear()
        holder.doc_string = None
    outside = {*model.graph.inputs, *model.graph.outputs}
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        value.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
            if output not in outside:
                output.shape = None


def save(model: ir.Model, path: Path) -> None:
    """Write `model`; weights above 1 GiB go to a second file beside it."""
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    ir.save(model, path, external_data=f"{path.name}.data" if size > _EXTERNAL_ABOVE_BYTES else None)


def parameters_of(model: ir.Model) -> int:
    """Number of elements of all floating-point and quantized weights."""
    return sum(value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None)


def opset_of(model: ir.Model) -> int:
    """Version of the default operator set."""
    return int(model.graph.opset_imports.get("", 0) or model.opset_imports.get("", 0))


def histogram_of(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, most frequent first."""
    counts: dict[str, int] = {}
    for node in model.graph:
        counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


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
