"""Which nodes of an ONNX graph int8 can take, and the model in the form that ONNX Runtime's tools take."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx_ir as ir

from ...core.errors import RefusedStep, UnknownName
from .linears import Place, array_of, array_shape, constant, drop_unused, is_linear, matrix_of, outputs_of, prepared, replace

_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND", "GatherBlockQuantized"})
_EXTERNAL_ABOVE_BYTES = 2**30
_SMALL = 1024


class Quantizable(msgspec.Struct, kw_only=True):
    """A model whose nodes all have names of their own.

    `linear` names its MatMul and Gemm nodes, `without_weight` those of them that multiply two activations (attention), and `wanted` those
    to quantize, each in graph order.
    """

    model: onnx.ModelProto
    linear: list[str]
    without_weight: list[str]
    wanted: list[str]

    @property
    def external(self) -> bool:
        """Whether its weights need a file beside the model's."""
        return sum(len(tensor.raw_data) for tensor in self.model.graph.initializer) > _EXTERNAL_ABOVE_BYTES

    def node(self, name: str) -> onnx.NodeProto:
        """The linear node called `name`."""
        found: onnx.NodeProto = next(node for node in self.model.graph.node if node.name == name)
        return found


def read_quantizable(path: Path, exclude: Collection[str], where: str, *, fuse: bool = False) -> Quantizable:
    """The model at `path`, functions written out and constants as initializers; with `fuse`, MatMul and Add on a matrix as one Gemm.

    Wanted are nodes with a constant float32 weight `[inputs, outputs]` on the right side, which is what ONNX Runtime's kernels take. Raises
    RefusedStep when there is none, UnknownName for an excluded node that does not exist.
    """
    graph = prepared(path, where)
    if fuse:
        fuse_bias(graph)
        _split_addends(graph)
        _plain_biases(graph)
    ir.external_data.load_to_model(graph)
    model = ir.to_proto(graph)
    name_nodes(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    tables = {node.input[0] for node in model.graph.node if node.op_type in _LOOKUPS}
    linear = {node.name: node for node in model.graph.node if node.op_type in {"MatMul", "Gemm"} and node.domain in {"", "ai.onnx"}}
    for name in exclude:
        if name not in linear:
            raise UnknownName(where, "node", name, linear)
    without_weight = [name for name, node in linear.items() if not any(i in weights for i in node.input[:2])]
    wanted = [
        name
        for name, node in linear.items()
        if name not in exclude
        and node.input[1] in weights
        and node.input[1] not in tables
        and node.input[0] not in weights
        and weights[node.input[1]].data_type == onnx.TensorProto.FLOAT
        and len(weights[node.input[1]].dims) == 2
        and not any(a.name == "transA" and a.i for a in node.attribute)
        and not (fuse and _odd_bias(node, weights))
    ]
    if not wanted:
        found = ", ".join(f"'{name}'" for name in without_weight[:5])
        problem = f"node {found} has no constant weight" if found else "no MatMul or Gemm left to quantize"
        raise RefusedStep(where, problem, fix="this model has nothing that int8 could make faster")
    return Quantizable(model=model, linear=list(linear), without_weight=without_weight, wanted=wanted)


def fuse_bias(model: ir.Model) -> int:
    """Write MatMul and the Add of a constant bias behind it as one Gemm under the MatMul's name, and other Adds as Sum, on matrices.

    ONNX Runtime does the same when it loads a model, but by then Q/DQ nodes are there, and the Gemm that it makes of them runs in float.
    Gives the number of nodes fused.
    """
    matrices = _matrices(model)
    fused = 0
    for node in list(model.graph):
        add = _add_behind(node) if node.op_type == "MatMul" and node.domain == "" else None
        if add is None or node.inputs[0] is None or node.inputs[0].name not in matrices:
            continue
        bias = next(value for value in add.inputs if value is not node.outputs[0])
        if bias is None or not _is_vector(bias, outputs_of(node)):
            # ONNX Runtime takes any other addend into the Gemm as well, a request's part of a split layer above all; not out of a Sum.
            add.op_type = "Sum"
            continue
        gemm = ir.node("Gemm", [node.inputs[0], node.inputs[1], bias], name=node.name, version=node.version)
        gemm.outputs[0].name = add.outputs[0].name
        gemm.outputs[0].type = add.outputs[0].type
        ir.convenience.replace_nodes_and_values(model.graph, add, [node, add], [gemm], [add.outputs[0]], [gemm.outputs[0]])
        fused += 1
    return fused


def _matrices(model: ir.Model) -> set[str]:
    """Names of the values that ONNX's shape inference says are matrices."""
    proto = ir.to_proto(model)
    # Axes and sizes decide shapes; the contents of weights do not, and may be too large to pass around.
    large = [tensor for tensor in proto.graph.initializer if int(np.prod(tensor.dims)) > _SMALL]
    proto.graph.input.extend(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in large)
    small = [tensor for tensor in proto.graph.initializer if int(np.prod(tensor.dims)) <= _SMALL]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(small)
    graph = onnx.shape_inference.infer_shapes(proto).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {v.name for v in values if v.type.tensor_type.HasField("shape") and len(v.type.tensor_type.shape.dim) == 2}


def _is_vector(value: ir.Value, size: int) -> bool:
    """Whether a value is a constant of `size` columns, or one number for all of them."""
    return value.const_value is not None and value.const_value.size in {1, size} and array_shape(value)[-1:] in {(), (1,), (size,)}


def _split_addends(model: ir.Model) -> None:
    """Take what a Gemm adds out of it where that is computed (the user's part of a split layer): int8 knows constant biases only."""
    for node in list(model.graph):
        addend = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        weight = node.inputs[1] if addend is not None else None
        if addend is None or addend.const_value is not None or weight is None or weight.const_value is None:
            continue
        if node.attributes.get_float("beta", 1.0) != 1.0 or node.attributes.get_int("transA", 0) != 0:
            continue
        # A MatMul: ONNX Runtime puts a Sum back into a Gemm.
        matrix = constant(model, f"{weight.name}_kn", matrix_of(node).astype(array_of(weight).dtype))
        product = ir.node("MatMul", [node.inputs[0], matrix], name=node.name)
        total = ir.node("Sum", [product.outputs[0], addend])
        product.outputs[0].name = f"{node.outputs[0].name}_product"
        total.outputs[0].name = node.outputs[0].name
        total.outputs[0].type, total.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [product, total], [node.outputs[0]], [total.outputs[0]])
    drop_unused(model)


def _plain_biases(model: ir.Model) -> None:
    """Give every Gemm's constant bias the shape `[outputs]`: the tool knows no other."""
    for node in model.graph:
        if node.op_type != "Gemm" or not is_linear(node) or len(node.inputs) < 3 or node.inputs[2] is None:
            continue
        bias = node.inputs[2]
        if array_shape(bias) != (outputs_of(node),):
            replace(model, Place(node, 2), np.broadcast_to(array_of(bias).reshape(-1), (outputs_of(node),)))


def _odd_bias(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> bool:
    """Whether a Gemm adds something else than a constant vector."""
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
    return bool(bias) and (bias not in weights or len(weights[bias].dims) != 1)


def _add_behind(node: ir.Node) -> ir.Node | None:
    """The Add that alone reads a MatMul with a constant matrix; None when there is none."""
    weight, output = node.inputs[1], node.outputs[0]
    uses = list(output.uses())
    if weight is None or weight.const_value is None or len(weight.const_value.shape) != 2 or len(uses) != 1 or output.is_graph_output():
        return None
    add = uses[0].node
    if add.op_type != "Add" or add.domain != "":
        return None
    other = add.inputs[1 - uses[0].idx]
    if other is None or other is output:
        return None
    return add


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes without a name, or with one that an earlier node has, a name of their own: ONNX Runtime's tools find nodes by name."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            base = node.name or node.op_type
            node.name = next(name for i in itertools.count(1) if (name := f"{base}_{i}") not in taken)
            taken.add(node.name)
        seen.add(node.name)


def require_same_tables(before: onnx.ModelProto, after: onnx.ModelProto, where: str) -> None:
    """Raise RefusedStep when an embedding table is not, byte for byte, what it was."""
    tables = {node.input[0] for node in before.graph.node if node.op_type in _LOOKUPS}
    old = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer if t.name in tables}
    new = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer if t.name in tables}
    read = {node.input[0] for node in after.graph.node if node.op_type in _LOOKUPS}
    changed = [name for name in old if name not in new or name not in read or not np.array_equal(old[name], new[name])]
    if changed:
        raise RefusedStep(where, f"the embedding table '{changed[0]}' would change", fix="exclude the nodes that share it")
