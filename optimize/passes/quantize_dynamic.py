"""Dynamic int8: the weights of MatMul and Gemm in 8 bits, activations quantized as they come."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import QuantizeDynamic
from ...runtime.archive import quiet
from ..context import StepContext

_LINEAR = ("MatMul", "Gemm")


def quantize_dynamic(step: QuantizeDynamic, context: StepContext) -> StepRecord:
    """Quantize with ONNX Runtime's tool; embedding tables and products of two activations (attention) stay as they are.

    Raises RefusedStep when no node has a constant weight, when nothing was quantized, or when a table was touched after all; UnknownName
    for an excluded node that does not exist.
    """
    where = f"quantize {context.where}"
    before = onnx.load(context.source)
    # The tool, its list of exclusions and this function all find nodes by name.
    source = before if _name_nodes(before) else context.source
    constants = {tensor.name for tensor in before.graph.initializer}
    linear = {node.name: node for node in before.graph.node if node.op_type in _LINEAR}
    for name in step.exclude:
        if name not in linear:
            raise UnknownName(where, "node", name, linear)
    without_weight = [name for name, node in linear.items() if not any(i in constants for i in node.input[:2])]
    # ONNX Runtime's dynamic kernel takes the weight on the right side only.
    wanted = [name for name, node in linear.items() if node.input[1] in constants and name not in step.exclude]
    if not wanted:
        found = ", ".join(f"'{name}'" for name in without_weight[:5])
        problem = f"node {found} has no constant weight" if found else "no MatMul or Gemm left to quantize"
        raise RefusedStep(where, problem, fix="this model has nothing that int8 could make faster")
    # The tool turns a Gemm `x` into a MatMul `x_MatMul` before it looks at names, so both are named.
    exclude = [alias for name in linear if name not in wanted for alias in (name, f"{name}_MatMul")]
    with quiet():
        ort_quantize_dynamic(
            source,
            context.target,
            op_types_to_quantize=list(_LINEAR),
            per_channel=step.per_channel,
            reduce_range=step.reduce_range,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            extra_options={"MatMulConstBOnly": True},
        )
    after = onnx.load(context.target)
    done = _quantized(after, wanted)
    if not done:
        raise RefusedStep(where, "nothing was quantized, although these nodes have weights: " + ", ".join(wanted[:5]))
    _require_same_tables(before, after, where)
    bits = "7-bit weights, safe without VNNI" if step.reduce_range else "8-bit weights, for CPUs with VNNI"
    parts = [f"{len(done)} of {len(linear)} MatMul/Gemm in int8 ({', '.join(done)})", bits, "embedding tables untouched"]
    if without_weight:
        parts.append(f"left alone, no constant weight: {', '.join(without_weight)}")
    kept = [name for name in wanted if name not in done]
    if kept:
        parts.append(f"left alone by ONNX Runtime: {', '.join(kept)}")
    return StepRecord(
        kind="quantize_dynamic",
        settings={"per_channel": step.per_channel, "reduce_range": step.reduce_range, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={"nodes_quantized": float(len(done))},
    )


def _name_nodes(model: onnx.ModelProto) -> bool:
    """Give nodes without a name, or with one that an earlier node has, a name of their own; says whether any changed."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    modified = False
    for node in model.graph.node:
        if not node.name or node.name in seen:
            base = node.name or node.op_type
            node.name = next(name for i in itertools.count(1) if (name := f"{base}_{i}") not in taken)
            taken.add(node.name)
            modified = True
        seen.add(node.name)
    return modified


def _quantized(model: onnx.ModelProto, wanted: list[str]) -> list[str]:
    """Which of the wanted nodes now read an int8 weight."""
    found = {node.name for node in model.graph.node if node.op_type in {"MatMulInteger", "DynamicQuantizeMatMul"}}
    return [name for name in wanted if found & {f"{name}_quant", f"{name}_MatMul_quant"}]


def _require_same_tables(before: onnx.ModelProto, after: onnx.ModelProto, where: str) -> None:
    tables = {node.input[0] for node in before.graph.node if node.op_type == "Gather"}
    old = {t.name: onnx.numpy_helper.to_array(t) for t in before.graph.initializer if t.name in tables}
    new = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer if t.name in tables}
    changed = [name for name in old if name not in new or not np.array_equal(old[name], new[name])]
    if changed:
        raise RefusedStep(where, f"the embedding table '{changed[0]}' would change", fix="exclude the nodes that share it")
