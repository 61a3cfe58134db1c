"""From TorchScript to ONNX, with PyTorch's exporter for it."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from ...core.errors import InputError
from ...runtime.archive import quiet
from .torchscript import How, script_or_trace, tensors_of, trace
from .torchscript_graph import simplify

if TYPE_CHECKING:
    import torch

# The newest that PyTorch's exporter for TorchScript knows.
OPSET = 20
Dims = Mapping[str, Mapping[int, str]]


def to_onnx(
    module: torch.nn.Module,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None = None,
    *,
    inputs: Dims,
    outputs: Dims,
    where: str,
) -> tuple[ir.Model, How]:
    """`module` by way of TorchScript, compiled where the exporter takes what was compiled, else traced; checked as in `script_or_trace`.

    `inputs` and `outputs` name the tensors in order, and their dimensions that vary by axis; the leading one is rows. Raises InputError.
    """
    varying = frozenset((name, axis) for name, axes in inputs.items() for axis in axes if axis)
    tensors = tensors_of(args, kwargs)
    script, how = script_or_trace(module, args, kwargs, varying=varying, where=where)
    try:
        return script_to_onnx(script, tensors, inputs=inputs, outputs=outputs, where=where), how
    except InputError:
        if how == "traced":
            raise
    script = trace(module, args, kwargs, varying=varying, where=where)
    return script_to_onnx(script, tensors, inputs=inputs, outputs=outputs, where=where), "traced"


def script_to_onnx(script: torch.jit.ScriptModule, tensors: Sequence[torch.Tensor], *, inputs: Dims, outputs: Dims, where: str) -> ir.Model:
    """Convert `script`, whose graph is simplified in place; inputs and outputs have these names in this order, and these dimensions.

    Raises InputError naming the operator that ONNX has no counterpart for.
    """
    import torch  # noqa: PLC0415 - takes seconds

    with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
        path = Path(folder) / "model.onnx"
        try:
            simplify(script)
            # The exporter prints the graph before it raises.
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                torch.onnx.export(
                    script,
                    tuple(tensors),
                    path,
                    dynamo=False,
                    opset_version=OPSET,
                    input_names=list(inputs),
                    output_names=list(outputs),
                    dynamic_axes={name: dict(axes) for name, axes in (*inputs.items(), *outputs.items()) if axes},
                )
        except Exception as error:  # the exporter wraps whatever an operator's conversion raised
            raise _refused(error, where) from error
        model = ir.load(path)
        for value in model.graph.initializers.values():
            if value.const_value is not None:
                value.const_value = ir.Tensor(value.const_value.numpy(), name=value.name)
    _name(model, tensors, inputs, outputs)
    return model


def _refused(error: Exception, where: str) -> InputError:
    operator = re.search(r"operator '(?P<name>[\w:]+)'", str(error))
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    fix = "change the model so that torch.export takes it"
    if operator is None:
        return InputError(where, f"PyTorch's exporter for TorchScript cannot convert it ({reason})", fix=fix)
    name = operator["name"]
    problem = f"PyTorch's exporter for TorchScript has no ONNX for {name}"
    return InputError(where, problem, fix=f"write {name.partition('::')[2]} with other operators, or {fix}")


def _name(model: ir.Model, tensors: Sequence[torch.Tensor], inputs: Dims, outputs: Dims) -> None:
    """All inputs in order, also those the graph does not use, with the dimensions that are known."""
    import torch  # noqa: PLC0415 - takes seconds

    dtypes = {
        torch.float32: ir.DataType.FLOAT,
        torch.float64: ir.DataType.DOUBLE,
        torch.int64: ir.DataType.INT64,
        torch.int32: ir.DataType.INT32,
        torch.bool: ir.DataType.BOOL,
        torch.int8: ir.DataType.INT8,
        torch.uint8: ir.DataType.UINT8,
        torch.float16: ir.DataType.FLOAT16,
    }
    present = {value.name: value for value in model.graph.inputs}
    ordered = []
    for (name, axes), tensor in zip(inputs.items(), tensors, strict=True):
        shape = ir.Shape([axes.get(axis, size) for axis, size in enumerate(tensor.shape)])
        value = present.get(name) or ir.val(name, dtypes[tensor.dtype], shape)
        value.shape = shape
        ordered.append(value)
    model.graph.inputs.clear()
    model.graph.inputs.extend(ordered)
    for value, name in zip(model.graph.outputs, outputs, strict=True):
        value.name = name
