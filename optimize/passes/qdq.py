"""Q/DQ graphs as PyTorch's exporter writes them, brought to the form that ONNX Runtime computes in int8."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnxscript import optimizer

from .linears import constant

_EVERYTHING_BYTES = 2**31


def halve_weights(model: ir.Model) -> None:
    """Double the scale of every weight, so that its int8 values stay within [-64, 64] and U8S8 sums cannot overflow on AVX2."""
    doubled: set[str] = set()
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or node.inputs[0].const_value is None:
            continue
        scale = node.inputs[1]
        if scale is not None and scale.const_value is not None and scale.name not in doubled:
            scale.const_value = ir.tensor(scale.const_value.numpy() * 2, name=scale.name)
            doubled.add(scale.name or "")


def fold_weights(model: ir.Model) -> None:
    """Compute constant Q nodes now, so that the file holds int8 weights; DQ stays, that is how ONNX Runtime sees what to fuse."""
    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=_EVERYTHING_BYTES,
        output_size_limit=_EVERYTHING_BYTES,
        should_fold=lambda node: True if node.op_type in {"QuantizeLinear", "Clip"} else None,
    )


def reads_int8(node: ir.Node) -> bool:
    """Whether the weight comes from an int8 constant through DequantizeLinear (and perhaps a Transpose)."""
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return False
    weight = producer.inputs[0].const_value
    return weight is not None and weight.dtype == ir.DataType.INT8


def quantize_biases(model: ir.Model) -> int:
    """Write the float bias of every quantized Gemm as int32 with the scale of its products; gives how many there were.

    ONNX Runtime has an int8 kernel for a Gemm whose bias is dequantized as well, and the others in float. Rounding to a multiple of
    (activation scale x weight scale) is what the kernel's sums are multiples of anyway.
    """
    count = 0
    for node in list(model.graph):
        if node.op_type != "Gemm" or len(node.inputs) < 3 or not reads_int8(node):
            continue
        bias, activation, weight = node.inputs[2], _scale(node.inputs[0]), _scale(node.inputs[1])
        if bias is None or bias.const_value is None or activation is None or weight is None or activation.size != 1:
            continue
        if node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_float("beta", 1.0) != 1.0:
            continue
        array = np.asarray(bias.const_value.numpy(), dtype=np.float64).reshape(-1)
        scale = (activation.reshape(-1).astype(np.float64) * weight.reshape(-1)).astype(np.float32)
        whole = np.rint(array / scale)
        if scale.size not in {1, array.size} or np.abs(whole).max(initial=0) > np.iinfo(np.int32).max:
            continue
        name = bias.name or "bias"
        inputs = [
            constant(model, f"{name}_int32", whole.astype(np.int32)),
            constant(model, f"{name}_scale", scale if scale.size > 1 else scale.reshape(())),
        ]
        back = ir.node("DequantizeLinear", inputs, attributes={"axis": 0}, name=f"{node.name}_bias")
        back.outputs[0].name = f"{name}_dequantized_{count}"
        model.graph.insert_before(node, back)
        node.replace_input_with(2, back.outputs[0])
        count += 1
    return count


def free_relus(model: ir.Model) -> int:
    """Write Relu behind a quantized linear node as Max(x, 0) unless what it gives is quantized again; gives how many there were.

    ONNX Runtime fuses a Relu into the float product before it looks for int8 ones; a Relu between products and Q goes into the int8 kernel.
    """
    count = 0
    for node in list(model.graph):
        source = node.inputs[0].producer() if node.op_type == "Relu" and node.inputs[0] is not None else None
        if source is None or source.op_type not in {"Gemm", "MatMul"} or not _computes_int8(source):
            continue
        output = node.outputs[0]
        uses = list(output.uses())
        if uses and not output.is_graph_output() and all(user.op_type == "QuantizeLinear" for user, _ in uses):
            continue
        zero = constant(model, "relu_zero", np.zeros((), dtype=np.float32))
        greater = ir.node("Max", [node.inputs[0], zero], name=node.name)
        greater.outputs[0].name = output.name
        greater.outputs[0].type, greater.outputs[0].shape = output.type, output.shape
        ir.convenience.replace_nodes_and_values(model.graph, node, [node], [greater], [output], [greater.outputs[0]])
        count += 1
    return count


def _computes_int8(node: ir.Node) -> bool:
    return _scale(node.inputs[0]) is not None and _scale(node.inputs[1]) is not None


def _scale(value: ir.Value | None) -> np.ndarray | None:
    """The constant scale of the DequantizeLinear (perhaps with a Transpose behind it) that gives `value`."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    scale = node.inputs[1] if node is not None and node.op_type == "DequantizeLinear" else None
    return None if scale is None or scale.const_value is None else scale.const_value.numpy()
