"""From an exported program to a tidy ONNX file, and what can be read off one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ...core.errors import InputError
from ...core.signature import Signature
from ...runtime.archive import quiet
from ..rewrites.squeezes import mend_squeezes
from ..rewrites.tidy import tidy

if TYPE_CHECKING:
    import torch

_EXTERNAL_ABOVE_BYTES = 2**30
_NO_WEIGHTS = {ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING}


def to_onnx(program: torch.export.ExportedProgram, signature: Signature, where: str) -> ir.Model:
    """Convert with PyTorch's exporter; tensors are named as in `signature`, dims too, and nothing names the author's files."""
    import torch  # noqa: PLC0415 - takes seconds

    with quiet(), torch.no_grad():
        try:
            converted = torch.onnx.export(
                program,
                (),
                dynamo=True,
                optimize=False,
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
    tidy(model)
    mend_squeezes(model)
    named = [(s.name, s.shape) for s in signature.inputs] + [(s.name, s.shape) for s in signature.outputs]
    for value, (name, shape) in zip([*model.graph.inputs, *model.graph.outputs], named, strict=True):
        value.name = name
        value.shape = ir.Shape(shape)
    _anonymise(model)
    return model


def _innermost(error: BaseException) -> str:
    """The first line of the error that the others were raised from: the exporter wraps it in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next((line.strip() for line in str(error).splitlines() if line.strip()), '')[:300]}"


def _anonymise(model: ir.Model) -> None:
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
    if size <= _EXTERNAL_ABOVE_BYTES:
        # What lies in a file beside the source would be missing beside `path`.
        ir.external_data.load_to_model(model)
    ir.save(model, path, external_data=f"{path.name}.data" if size > _EXTERNAL_ABOVE_BYTES else None)


def parameters_of(model: ir.Model) -> int:
    """Number of elements of all floating-point and quantized weights; axes and sizes, which are int64, do not count."""
    contents = (value.const_value for value in model.graph.initializers.values())
    return sum(content.size for content in contents if content is not None and content.dtype not in _NO_WEIGHTS)


def opset_of(model: ir.Model) -> int:
    """Version of the default operator set."""
    return int(model.graph.opset_imports.get("", 0) or model.opset_imports.get("", 0))
