"""Linear nodes of an ONNX graph (MatMul and Gemm with a constant weight): their weights, their biases, and how to change both."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from ...runtime.onnx_file import load
from ..cost.dependence import inlined

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
# How many Adds after a product are searched for the one that holds its bias.
_HOPS = 4
# What `replace` adds to a constant's name.
_KEPT = re.compile(r"_kept(_\d+)?$")


class Place(msgspec.Struct, frozen=True):
    """Where a constant stands: an input position of a node."""

    node: ir.Node
    position: int

    @property
    def array(self) -> np.ndarray:
        """Its numbers as they are stored."""
        return array_of(self.node.inputs[self.position])


def prepared(path: Path, where: str) -> ir.Model:
    """A model as this room's techniques take it: functions written out, Constant nodes as initializers."""
    model = inlined(load(path, where))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return model


def is_linear(node: ir.Node) -> bool:
    """A MatMul with a constant weight `[..., inputs, outputs]`, or a Gemm with a constant weight and no bias or a constant one."""
    return has_weight(node) and addend_of(node) is None


def has_weight(node: ir.Node) -> bool:
    """The same, or a Gemm that adds something computed (see `addend_of`)."""
    if node.op_type not in {"MatMul", "Gemm"} or node.domain != "" or len(node.inputs) < 2:
        return False
    left, weight = node.inputs[0], node.inputs[1]
    if left is None or left.const_value is not None or weight is None or weight.const_value is None:
        return False
    if weight.const_value.dtype not in _FLOATS or not 2 <= len(weight.const_value.shape) <= 3 or not weight.const_value.size:
        return False
    if node.op_type == "MatMul":
        return True
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    usual_bias = bias is None or bias.const_value is None or bias.const_value.size in (1, outputs_of(node))
    return usual_bias and not node.attributes.get_int("transA", 0) and _factor(node, "alpha") != 0 and _factor(node, "beta") != 0


def addend_of(node: ir.Node) -> ir.Value | None:
    """What a Gemm adds where that is computed: a request's part of a sum, for example."""
    if node.op_type != "Gemm" or len(node.inputs) < 3 or node.inputs[2] is None or node.inputs[2].const_value is not None:
        return None
    return node.inputs[2]


def inputs_of(node: ir.Node) -> int:
    """Columns of what a linear node reads."""
    return int(_shape(node)[-1 if _transposed(node) else -2])


def outputs_of(node: ir.Node) -> int:
    """Columns of what a linear node gives."""
    return int(_shape(node)[-2 if _transposed(node) else -1])


def matrix_of(node: ir.Node) -> np.ndarray:
    """What a linear node multiplies by: float64 `[inputs, outputs]`, or `[experts, inputs, outputs]` for a batch of matrices."""
    weight = np.asarray(array_of(node.inputs[1]), dtype=np.float64)
    return (weight.T if _transposed(node) else weight) * _factor(node, "alpha")


def offset_of(node: ir.Node) -> np.ndarray:
    """The bias that a linear node itself adds: float64 `[outputs]`, zeros without."""
    if node.op_type != "Gemm" or len(node.inputs) < 3 or node.inputs[2] is None or node.inputs[2].const_value is None:
        return np.zeros(outputs_of(node))
    bias = np.asarray(array_of(node.inputs[2]), dtype=np.float64).reshape(-1)
    return np.broadcast_to(bias, outputs_of(node)) * _factor(node, "beta")


def set_matrix(model: ir.Model, node: ir.Node, matrix: np.ndarray) -> None:
    """Make a linear node multiply by `matrix` `[..., inputs, outputs]`; a weight that others share stays whole there."""
    stored = matrix / _factor(node, "alpha")
    replace(model, Place(node, 1), np.swapaxes(stored, -1, -2) if _transposed(node) else stored)


def take_outputs(model: ir.Model, node: ir.Node, chosen: np.ndarray) -> None:
    """Keep these output columns of a linear node, and of the bias it holds itself."""
    bias = offset_place(node)
    take(model, Place(node, 1), -2 if _transposed(node) else -1, chosen)
    if bias is not None:
        take(model, bias, -1, chosen)


def offset_place(node: ir.Node) -> Place | None:
    """Where a Gemm's own bias with one number per output stands."""
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    return None if bias is None or bias.const_value is None or bias.const_value.size != outputs_of(node) else Place(node, 2)


def bias_place(node: ir.Node) -> Place | None:
    """The constant vector that is added to a linear node's result, by itself or by an Add behind it; None when there is none.

    In a sum of several products (a request's part and a candidate's part) it is the bias of the sum.
    """
    outputs, part = outputs_of(node), node
    for _ in range(_HOPS):
        found, added = offset_place(part), addend_of(part)
        if found is not None:
            return found
        before = None if added is None or len(list(added.uses())) != 1 or added.is_graph_output() else added.producer()
        if before is None or not has_weight(before) or outputs_of(before) != outputs or _factor(part, "beta") != 1:
            break
        part = before
    value = node.outputs[0]
    for _ in range(_HOPS):
        uses = list(value.uses())
        if len(uses) != 1 or value.is_graph_output():
            return None
        user, position = uses[0]
        if user.op_type != "Add" or user.domain != "":
            return None
        other = user.inputs[1 - position]
        if other is None or other is value:
            return None
        if other.const_value is not None:
            vector = other.const_value.size == outputs and len(other.const_value.shape) > 0 and other.const_value.shape[-1] == outputs
            return Place(user, 1 - position) if vector else None
        value = user.outputs[0]
    return None


def add_to_bias(model: ir.Model, place: Place, shift: np.ndarray) -> None:
    """Add `shift` `[outputs]` to the bias at `place`."""
    old = place.array
    factor = _factor(place.node, "beta") if place.node.op_type == "Gemm" else 1.0
    replace(model, place, np.asarray(old, dtype=np.float64) + (shift / factor).reshape(old.shape))


def take(model: ir.Model, place: Place, axis: int, chosen: np.ndarray) -> None:
    """Keep the entries `chosen` of a constant along `axis`."""
    replace(model, place, np.take(place.array, chosen, axis=axis))


def replace(model: ir.Model, place: Place, array: np.ndarray) -> None:
    """Put a new constant, of the old one's type, where `place` is; nodes that share the old one keep it."""
    old = place.node.inputs[place.position]
    if old is None:
        raise AssertionError("only constants are replaced")
    kept = np.ascontiguousarray(array.astype(array_of(old).dtype))
    value = constant(model, f"{_KEPT.sub('', old.name or 'weight')}_kept", kept)
    place.node.replace_input_with(place.position, value)


def constant(model: ir.Model, base: str, array: np.ndarray) -> ir.Value:
    """A new initializer with a name of its own that starts with `base`."""
    taken = {value.name for node in model.graph for value in node.outputs} | {value.name for value in model.graph.inputs}
    name, count = base, 1
    while name in model.graph.initializers or name in taken:
        count += 1
        name = f"{base}_{count}"
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
    model.graph.register_initializer(value)
    return value


def array_of(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant."""
    if value is None or value.const_value is None:
        raise AssertionError("only constants are asked for their values")
    return value.const_value.numpy()


def name_of(node: ir.Node) -> str:
    """The module's name where its weight or its bias still carries it (`mlp.0` of `mlp.0.weight`), else the weight's or the node's."""
    place = bias_place(node)
    bias = None if place is None else place.node.inputs[place.position]
    stored = [_KEPT.sub("", value.name or "") for value in (node.inputs[1], bias) if value is not None]
    for name in stored:
        if name.endswith((".weight", ".bias")):
            return name.removesuffix(".weight").removesuffix(".bias")
    return stored[0] if stored and not stored[0].startswith("val_") else node.name or stored[0]


def drop_unused(model: ir.Model) -> None:
    """Forget constants that nobody reads any more."""
    unused = [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        model.graph.initializers.pop(name)


def weights_of(model: ir.Model) -> float:
    """Number of elements of all constants."""
    return float(sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None))


def _shape(node: ir.Node) -> tuple[int, ...]:
    return array_shape(node.inputs[1])


def array_shape(value: ir.Value | None) -> tuple[int, ...]:
    """The shape of a constant, without reading its numbers."""
    if value is None or value.const_value is None:
        raise AssertionError("only constants are asked for their shape")
    return tuple(int(size) for size in value.const_value.shape.numpy())


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))


def _factor(node: ir.Node, name: str) -> float:
    return float(node.attributes.get_float(name, 1.0)) if node.op_type == "Gemm" else 1.0
