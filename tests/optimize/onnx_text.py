"""Graphs written as ONNX text, and the signature of their inputs."""

from __future__ import annotations

import math

import onnx
import onnx.parser
import onnx_ir as ir
from liftgate.core.signature import Dim, InputSpec, Layout, OutputSpec, Signature
from liftgate.optimize.cost.cost import Cost, cost_of
from liftgate.optimize.cost.sizes import sizes_of

HEADER = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1, "other" : 1]>'


def graph(text: str, *, opset: int = 23, functions: str = "") -> ir.Model:
    """A model from `(inputs) => (outputs) <weights> { nodes }`; float weights written as `= {}` are zeros."""
    proto = onnx.parser.parse_model(f"{HEADER.format(opset=opset)}\nranker {text}\n{functions}")
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and not tensor.float_data:
            tensor.raw_data = bytes(4 * math.prod(tensor.dims))
    return ir.from_proto(proto)


def signature(model: ir.Model, *, request: str = "", layout: Layout = "rows") -> Signature:
    """The signature of its inputs; those named in `request` (by blanks) are request inputs."""

    def shape(value: ir.Value) -> tuple[Dim, ...]:
        return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape or ())

    inputs = [
        InputSpec(
            name=str(value.name),
            dtype=str(value.dtype.numpy()) if value.dtype is not None else "",
            shape=shape(value),
            role="request" if value.name in request.split() else "candidate",
        )
        for value in model.graph.inputs
    ]
    outputs = (OutputSpec(name=str(model.graph.outputs[0].name), dtype="float32", shape=("rows",)),)
    return Signature(inputs=tuple(inputs), outputs=outputs, layout=layout)


def cost(
    text: str,
    *,
    request: str = "",
    candidates: int = 10,
    dims: dict[str, int] | None = None,
    layout: Layout = "rows",
    opset: int = 23,
    functions: str = "",
) -> Cost:
    """What the graph costs a request."""
    model = graph(text, opset=opset, functions=functions)
    spec = signature(model, request=request, layout=layout)
    return cost_of(model, spec, sizes_of(spec, candidates=candidates, dims=dims))
