"""The shape of every value of a graph for one choice of input sizes, by onnx's shape inference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from .dependence import subgraphs

Shape = tuple[int, ...]

# Above this many elements a constant holds weights, not a shape, an axis or a scale.
SMALL = 1024


class Tensors:
    """Shapes and dtypes of the values of `model` (without functions) when its inputs have the shapes in `inputs`.

    Inference leaves holes where it does not know an operator or where numbers decide a size: `learn` fills them. The values of a
    subgraph are known after `enter`.
    """

    def __init__(self, model: ir.Model, inputs: Mapping[str, Shape]) -> None:
        self._model = model
        self._shapes: dict[ir.Value, Shape] = {}
        self._dtypes: dict[ir.Value, ir.DataType] = {}
        self._numbers: dict[ir.Value, np.ndarray] = {}
        self._other: set[ir.Value] = set()
        self._infer(model.graph, [inputs.get(value.name or "") for value in model.graph.inputs])

    def shape(self, value: ir.Value) -> Shape | None:
        """The shape, None where it is unknown or `value` is no tensor."""
        if value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        return self._shapes.get(value)

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The type of the elements, None where it is unknown."""
        if value.const_value is not None:
            return value.const_value.dtype
        return self._dtypes.get(value, value.dtype)

    def nbytes(self, value: ir.Value) -> int | None:
        """Size in bytes, None where shape or type is unknown."""
        shape, dtype = self.shape(value), self.dtype(value)
        if shape is None or dtype is None or dtype is ir.DataType.STRING:
            return None
        return math.ceil(math.prod(shape) * dtype.bitwidth / 8)

    def numbers(self, value: ir.Value | None) -> np.ndarray | None:
        """The numbers of a small constant, or what was learnt of a value; None for everything else."""
        if value is None:
            return None
        constant = ir.convenience.get_const_tensor(value)
        if constant is None:
            return self._numbers.get(value)
        return constant.numpy() if constant.size <= SMALL else None

    def holes(self) -> list[ir.Value]:
        """The tensors of the main graph without a shape or dtype."""
        made = [value for node in self._model.graph for value in node.outputs if value.name and value not in self._other]
        return [value for value in made if self.shape(value) is None or self.dtype(value) is None]

    def learn(self, value: ir.Value, shape: Shape, dtype: ir.DataType, numbers: np.ndarray | None = None) -> None:
        """Take from a run what inference does not know."""
        self._shapes[value], self._dtypes[value] = shape, dtype
        if numbers is not None:
            self._numbers[value] = numbers

    def enter(self, graph: ir.Graph, shapes: Sequence[Shape | None]) -> None:
        """Infer a subgraph whose inputs have these shapes; values of the graphs around it must be known by now."""
        self._infer(graph, shapes)

    def _infer(self, graph: ir.Graph, shapes: Sequence[Shape | None]) -> None:
        for value, shape in zip(graph.inputs, shapes, strict=True):
            if shape is not None:
                self._shapes[value] = shape
        outside = [value for value in captured(graph) if self.shape(value) is not None and self.dtype(value) is not None]
        proto = onnx.ModelProto(ir_version=self._model.ir_version, opset_import=_opsets(self._model))
        proto.graph.CopyFrom(bare(graph))
        proto.graph.ClearField("input")
        for value in (*graph.inputs, *outside, *(v for v in graph.initializers.values() if _is_large(v))):
            self._declare(value, proto.graph)
        try:
            inferred = onnx.shape_inference.infer_shapes(proto, check_type=False, strict_mode=False, data_prop=True)
        except Exception:  # it raises its own types on graphs it does not understand; every value then is a hole
            return
        found = {info.name: info.type for info in (*inferred.graph.value_info, *inferred.graph.output)}
        for value in (value for node in graph for value in node.outputs):
            if value.name in found:
                self._take(value, found[value.name])

    def _declare(self, value: ir.Value, graph: onnx.GraphProto) -> None:
        """Make a value whose type is known an input of `graph`; a small constant keeps its numbers."""
        dtype, constant = self.dtype(value), value.const_value
        if constant is not None and constant.size <= SMALL:
            if value.name not in {tensor.name for tensor in graph.initializer}:
                graph.initializer.append(tensor_proto(value.name, constant))
        elif dtype is not None:
            graph.input.append(onnx.helper.make_tensor_value_info(value.name or "", int(dtype), self.shape(value)))

    def _take(self, value: ir.Value, kind: onnx.TypeProto) -> None:
        if not kind.HasField("tensor_type"):
            if kind.WhichOneof("value") is not None:
                self._other.add(value)
            return
        tensor = kind.tensor_type
        if tensor.elem_type:
            self._dtypes[value] = ir.DataType(tensor.elem_type)
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            self._shapes[value] = tuple(dim.dim_value for dim in tensor.shape.dim)


def captured(graph: ir.Graph) -> list[ir.Value]:
    """Values from the graphs around it that `graph`, or a graph inside it, reads."""
    inside: set[ir.Value] = {*graph.inputs, *graph.initializers.values()}
    found: dict[ir.Value, None] = {}
    for node in graph:
        reads: Iterable[ir.Value | None] = (*node.inputs, *(value for inner in subgraphs(node).values() for value in captured(inner)))
        found.update((value, None) for value in reads if value is not None and value not in inside)
        inside.update(node.outputs)
    found.update((value, None) for value in graph.outputs if value not in inside)
    return list(found)


def bare(graph: ir.Graph) -> onnx.GraphProto:
    """A graph's nodes, the names of its inputs and outputs, and its small initializers: no weights, and no shapes to be misled by."""
    proto = onnx.GraphProto(name=graph.name or "graph")
    proto.node.extend(ir.serde.serialize_node(node) for node in graph)
    proto.input.extend(onnx.ValueInfoProto(name=value.name) for value in graph.inputs)
    proto.output.extend(onnx.ValueInfoProto(name=value.name) for value in graph.outputs)
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.size <= SMALL:
            proto.initializer.append(tensor_proto(value.name, value.const_value))
    return proto


def tensor_proto(name: str | None, content: ir.TensorProtocol) -> onnx.TensorProto:
    """A tensor with its numbers in it, wherever they lie now."""
    if content.dtype is ir.DataType.STRING:
        proto = ir.to_proto(content)
        proto.name = name or ""
        return proto
    return onnx.TensorProto(name=name, data_type=int(content.dtype), dims=content.shape.numpy(), raw_data=content.tobytes())


def _is_large(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size > SMALL


def _opsets(model: ir.Model) -> list[onnx.OperatorSetIdProto]:
    return [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
