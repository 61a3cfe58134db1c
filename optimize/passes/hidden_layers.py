"""Finding the hidden layers of an ONNX graph: linear, elementwise operations, linear."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

_UNARY = frozenset(
    {
        "Relu",
        "Gelu",
        "Sigmoid",
        "Tanh",
        "LeakyRelu",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Softsign",
        "HardSigmoid",
        "HardSwish",
        "Mish",
        "Swish",
        "ThresholdedRelu",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Reciprocal",
        "Neg",
        "Abs",
        "Identity",
        "Cast",
        "Clip",
        "Dropout",
        "Sign",
        "Floor",
        "Ceil",
        "Round",
    }
)
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "PRelu"})


class HiddenLayer(msgspec.Struct, kw_only=True):
    """The units that `source` computes and only `sinks` read, with the elementwise operations between.

    `width` is the number of units, `sink_input` the name of the tensor the first sink reads; `vectors` are the constants with one entry per
    unit (biases, slopes) on the way, as (node, input position).
    """

    name: str
    width: int
    source: ir.Node
    sinks: list[ir.Node]
    vectors: list[tuple[ir.Node, int]]
    sink_input: str

    def shrink(self, model: ir.Model, chosen: np.ndarray) -> None:
        """Keep the units `chosen` (sorted indices). Tensors shared with other nodes are copied, never changed."""
        axis = 0 if _transposed(self.source) else -1
        _slice(model, self.source, 1, axis, chosen)
        bias = self.source.inputs[2] if self.source.op_type == "Gemm" and len(self.source.inputs) > 2 else None
        if bias is not None and _array(bias).size > 1:
            _slice(model, self.source, 2, -1, chosen)
        for node, position in self.vectors:
            _slice(model, node, position, -1, chosen)
        for sink in self.sinks:
            _slice(model, sink, 1, 1 if _transposed(sink) else 0, chosen)


def find_hidden_layers(model: ir.Model) -> list[HiddenLayer]:
    """All hidden layers, in graph order. A layer whose units are read by anything but another linear layer is none."""
    found = (_layer_from(node, model) for node in model.graph)
    return [layer for layer in found if layer is not None]


def matrix_of(node: ir.Node, width: int, *, incoming: bool) -> np.ndarray:
    """Weight of a linear node as float64 `[inputs, outputs]`; for the incoming one a Gemm's bias is one more row."""
    weight = np.asarray(_array(node.inputs[1]), dtype=np.float64)
    matrix = weight.T if _transposed(node) else weight
    if incoming and node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = np.broadcast_to(np.asarray(_array(node.inputs[2]), dtype=np.float64).reshape(1, -1), (1, width))
        return np.concatenate([matrix, bias])
    return matrix


def _layer_from(node: ir.Node, model: ir.Model) -> HiddenLayer | None:
    """Walk from a linear node's output through everything elementwise; None when the walk meets anything else."""
    if not _is_linear(node):
        return None
    width = matrix_of(node, 0, incoming=False).shape[1]
    region: set[ir.Value] = {node.outputs[0]}
    inside: set[ir.Node] = set()
    sinks: list[ir.Node] = []
    pending = [node.outputs[0]]
    while pending:
        value = pending.pop(0)
        if value.is_graph_output():
            return None
        for user, position in value.uses():
            if user.graph is not model.graph:
                return None
            if _is_linear(user) and position == 0 and matrix_of(user, 0, incoming=False).shape[0] == width:
                sinks.append(user)
            elif user.op_type in _UNARY | _BINARY and user.domain == "" and len(user.outputs) == 1:
                if user not in inside:
                    inside.add(user)
                    region.add(user.outputs[0])
                    pending.append(user.outputs[0])
            else:
                return None
    vectors = _vectors(inside, region, width)
    if not sinks or vectors is None:
        return None
    first = sinks[0].inputs[0]
    return HiddenLayer(
        name=_layer_name(node),
        width=width,
        source=node,
        sinks=list(dict.fromkeys(sinks)),
        vectors=vectors,
        sink_input=(first.name if first is not None else "") or "",
    )


def _vectors(inside: set[ir.Node], region: set[ir.Value], width: int) -> list[tuple[ir.Node, int]] | None:
    """Constants with one entry per unit; None when an operation mixes the units with other tensors than those."""
    vectors = []
    for node in inside:
        for position, value in enumerate(node.inputs):
            if value is None or value in region:
                continue
            if value.const_value is None:
                return None
            array = _array(value)
            if array.size == 1:
                continue
            if array.shape[-1] != width or array.size != width or node.op_type == "Clip":
                return None
            vectors.append((node, position))
    return vectors


def _is_linear(node: ir.Node) -> bool:
    """A MatMul or Gemm whose second input is a constant matrix."""
    if node.op_type not in {"MatMul", "Gemm"} or node.domain != "":
        return False
    weight = node.inputs[1]
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2:
        return False
    if node.op_type == "Gemm":
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        constant_bias = bias is None or (bias.const_value is not None and bias.const_value.size in (1, _outputs(node)))
        return not node.attributes.get_int("transA", 0) and constant_bias
    return True


def _outputs(node: ir.Node) -> int:
    return int(_array(node.inputs[1]).shape[0 if _transposed(node) else 1])


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))


def _array(value: ir.Value | None) -> np.ndarray:
    if value is None or value.const_value is None:
        raise AssertionError("only constants are asked for their values")
    return value.const_value.numpy()


def _slice(model: ir.Model, node: ir.Node, position: int, axis: int, chosen: np.ndarray) -> None:
    old = node.inputs[position]
    array = np.ascontiguousarray(np.take(_array(old), chosen, axis=axis))
    base = f"{old.name if old is not None else ''}_kept"
    name, count = base, 1
    while name in model.graph.initializers:
        count += 1
        name = f"{base}_{count}"
    new = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    new.dtype, new.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    model.graph.register_initializer(new)
    node.replace_input_with(position, new)


def _layer_name(node: ir.Node) -> str:
    """The module's name where the weight still carries it (`mlp.0` of `mlp.0.weight`), else the node's."""
    weight = (node.inputs[1].name if node.inputs[1] is not None else "") or ""
    for suffix in ("_kept", ".weight"):
        weight = weight.removesuffix(suffix)
    return weight if "." in weight or not weight.startswith("val_") else node.name or weight
