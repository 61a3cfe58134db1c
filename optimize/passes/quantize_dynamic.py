"""Dynamic int8: the weights of MatMul and Gemm in 8 bits, activations quantized as they come."""

from __future__ import annotations

import onnx
from onnxruntime.quantization import QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import QuantizeDynamic
from ...runtime.archive import quiet
from ..context import StepContext
from .number_format import weight_numbers
from .quantizable import read_quantizable, require_same_tables


def quantize_dynamic(step: QuantizeDynamic, context: StepContext) -> StepRecord:
    """Quantize with ONNX Runtime's tool; embedding tables and products of two activations (attention) stay as they are.

    Raises RefusedStep when no node has a constant weight, when nothing was quantized, or when a table was touched after all; UnknownName
    for an excluded node that does not exist.
    """
    where = f"quantize {context.where}"
    before = read_quantizable(context.source, step.exclude, where)
    numbers = weight_numbers(step.format)
    # The tool turns a Gemm `x` into a MatMul `x_MatMul` before it looks at names, so both are named.
    left = [name for name in before.linear if name not in before.wanted]
    with quiet():
        ort_quantize_dynamic(
            before.model,
            context.target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=step.per_channel,
            reduce_range=numbers.bits < 8,
            weight_type=QuantType.QInt8 if numbers.signed else QuantType.QUInt8,
            nodes_to_exclude=[alias for name in left for alias in (name, f"{name}_MatMul")],
            use_external_data_format=before.external,
            extra_options={"MatMulConstBOnly": True},
        )
    after = onnx.load(context.target)
    done = _quantized(after, before.wanted)
    if not done:
        raise RefusedStep(where, "nothing was quantized, although these nodes have weights: " + ", ".join(before.wanted[:5]))
    require_same_tables(before.model, after, where)
    parts = [f"{len(done)} of {len(before.linear)} MatMul/Gemm in int8 ({', '.join(done)})", numbers.note, "embedding tables untouched"]
    if before.without_weight:
        parts.append(f"left alone, no constant weight: {', '.join(before.without_weight)}")
    kept = [name for name in before.wanted if name not in done]
    if kept:
        parts.append(f"left alone by ONNX Runtime: {', '.join(kept)}")
    return StepRecord(
        kind="quantize_dynamic",
        settings={"per_channel": step.per_channel, "format": step.format, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={"nodes_quantized": float(len(done)), "weight_bits": float(numbers.bits)},
    )


def _quantized(model: onnx.ModelProto, wanted: list[str]) -> list[str]:
    """Which of the wanted nodes now read an int8 weight."""
    found = {node.name for node in model.graph.node if node.op_type in {"MatMulInteger", "DynamicQuantizeMatMul"}}
    return [name for name in wanted if found & {f"{name}_quant", f"{name}_MatMul_quant"}]
