"""Weights of linear layers in 8 or 4 bits, for memory: ONNX Runtime's MatMulNBits, which multiplies by packed weights as they lie."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import QuantizeWeights
from ...runtime.archive import quiet
from ..context import StepContext
from .linears import array_of, constant, drop_unused, matrix_of
from .quantizable import read_quantizable, require_same_tables

# Products in int8, block by block: the other levels unpack whole matrices at run time, and so take more memory than float does.
_ACCURACY_LEVEL = 4


def quantize_weights(step: QuantizeWeights, context: StepContext) -> StepRecord:
    """Pack the constant weights of MatMul and Gemm (first made MatMul and Add, which is all that the tool sees).

    Weights that something else reads as well are left alone: they would be stored twice. Embedding tables stay as they are. Raises
    RefusedStep when nothing was packed or a table was touched; UnknownName for an excluded node that does not exist.
    """
    where = f"quantize --weights-only {context.where}"
    found = read_quantizable(context.source, step.exclude, where)
    readers = [name for node in found.model.graph.node for name in node.input]
    wanted = [name for name in found.wanted if readers.count(found.node(name).input[1]) == 1]
    shared = [name for name in found.wanted if name not in wanted]
    if not wanted:
        raise RefusedStep(where, f"every weight is read by more than one node ({', '.join(shared[:5])})", fix="leave this step out")
    graph = ir.from_proto(found.model)
    _without_gemm(graph, wanted)
    model = ir.to_proto(graph)
    before = sum(array.nbytes for array in _weights(found.model, wanted))
    config = DefaultWeightOnlyQuantConfig(
        block_size=step.block_size, is_symmetric=True, accuracy_level=_ACCURACY_LEVEL, bits=step.bits, op_types_to_quantize=("MatMul",)
    )
    with quiet():
        others = [node.name for node in model.graph.node if node.name not in wanted]
        tool = MatMulNBitsQuantizer(model, bits=step.bits, algo_config=config, nodes_to_exclude=others)
        tool.process()
    after = tool.model.model
    done = [name for name in wanted if f"{name}_Q{step.bits}" in {node.name for node in after.graph.node if node.op_type == "MatMulNBits"}]
    if not done:
        raise RefusedStep(where, "ONNX Runtime packed none of " + ", ".join(wanted[:5]), fix="leave this step out")
    require_same_tables(found.model, after, where)
    packed = {name for node in after.graph.node if node.op_type == "MatMulNBits" for name in node.input[1:]}
    stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in after.graph.initializer if tensor.name in packed)
    if stored >= before:
        fix = f"use blocks larger than {step.block_size}, or leave this step out"
        raise RefusedStep(where, f"{before:,} bytes of weights would become {stored:,} with the scales of their blocks", fix=fix)
    tool.model.save_model_to_file(context.target, found.external)
    parts = [
        f"weights of {len(done)} of {len(found.linear)} MatMul/Gemm in {step.bits} bits ({', '.join(done)})",
        f"{before:,} bytes of weights became {stored:,}",
        "embedding tables untouched",
    ]
    if shared:
        parts.append(f"left alone, weight read by other nodes too: {', '.join(shared)}")
    return StepRecord(
        kind="quantize_weights",
        settings={"bits": step.bits, "block_size": step.block_size, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={"nodes_quantized": float(len(done)), "weight_bytes_before": float(before), "weight_bytes_after": float(stored)},
    )


def _without_gemm(model: ir.Model, names: list[str]) -> None:
    """Write the Gemm nodes called so as MatMul, keeping the name, and Add."""
    for node in list(model.graph):
        if node.op_type != "Gemm" or node.name not in names:
            continue
        weight = constant(model, f"{node.inputs[1].name if node.inputs[1] is not None else 'weight'}_kn", matrix_of(node).astype("float32"))
        product = ir.node("MatMul", [node.inputs[0], weight], name=node.name)
        made = [product]
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        beta = node.attributes.get_float("beta", 1.0)
        if bias is not None:
            if beta != 1.0:
                bias = constant(model, f"{bias.name}_scaled", array_of(bias) * beta)
            made.append(ir.node("Add", [product.outputs[0], bias], name=f"{node.name}_bias"))
        product.outputs[0].name = f"{node.outputs[0].name}_product" if len(made) > 1 else node.outputs[0].name
        made[-1].outputs[0].name = node.outputs[0].name
        made[-1].outputs[0].type, made[-1].outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], made, [node.outputs[0]], [made[-1].outputs[0]])
    drop_unused(model)


def _weights(model: onnx.ModelProto, names: list[str]) -> list[np.ndarray]:
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    return [onnx.numpy_helper.to_array(held[node.input[1]]) for node in model.graph.node if node.name in names]
