"""16-bit floats for GPUs: weights and activations in half precision, ids and the model's inputs and outputs as they were."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import TensorProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...core.machine import this_machine
from ...recipes.steps import ToHalf
from ...runtime.archive import quiet
from ...runtime.onnx_session import session_options
from ...runtime.session import SessionSettings
from ..context import StepContext
from .exact_ids import cut_ids, stitch_ids
from .linears import prepared
from .quantizable import name_nodes

_LARGEST_HALF = 65504.0
_EXTERNAL_ABOVE_BYTES = 2**30


def to_half(step: ToHalf, context: StepContext) -> StepRecord:
    """Convert with ONNX Runtime's tool, around the nodes that compute ids from float inputs: those keep every bit.

    Raises RefusedStep for x86 CPUs, where ONNX Runtime has no half-precision kernels, for weights beyond half precision's range, for a
    model without float weights, and where ONNX Runtime on this machine cannot run the result, so that nothing would vouch for it;
    UnknownName for an excluded node that does not exist.
    """
    where = f"quantize --{step.number} {context.where}"
    if step.runs_on == "cpu" and "x86" in this_machine().system:
        problem = (
            "ONNX Runtime has no half-precision matrix products for x86 CPUs: it converts every weight and activation back to float32 at"
            " run time, which is slower than leaving them so"
        )
        raise RefusedStep(where, problem, fix="quantize with --int8 for speed, or say that the model is for a GPU (--gpu, runs_on = 'gpu')")
    graph = prepared(context.source, where)
    ir.external_data.load_to_model(graph)
    model = ir.to_proto(graph)
    name_nodes(model)
    names = {node.name for node in model.graph.node}
    for name in step.exclude:
        if name not in names:
            raise UnknownName(where, "node", name, names)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    _check_weights(weights, step, where)
    cut = cut_ids(model)
    with quiet():
        try:
            half = convert_float_to_float16(model, keep_io_types=True, node_block_list=list(step.exclude))
        except Exception as error:  # the tool raises whatever it trips over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RefusedStep(
                where, f"ONNX Runtime's tool cannot convert this model ({reason[:240]})", fix="exclude the node it names"
            ) from error
    if step.number == "bf16":
        _to_bfloat16(half, weights)
    stitch_ids(half, cut)
    half = _in_order(half)
    wanted = TensorProto.FLOAT16 if step.number == "fp16" else TensorProto.BFLOAT16
    halved = sum(tensor.data_type == wanted for tensor in half.graph.initializer)
    size = sum(len(tensor.raw_data) for tensor in half.graph.initializer)
    onnx.save(half, context.target, save_as_external_data=size > _EXTERNAL_ABOVE_BYTES, location=f"{context.target.name}.data")
    try:
        ort.InferenceSession(context.target, session_options(SessionSettings()), providers=ort.get_available_providers())
    except Exception as error:  # ONNX Runtime raises its own types, which share no public base class
        for file in context.target.parent.glob(f"{context.target.name}*"):
            file.unlink()
        reason = str(error).splitlines()[0]
        fix = "use fp16, which every build can check" if step.number == "bf16" else "exclude the node it names"
        raise RefusedStep(
            where, f"ONNX Runtime on this machine cannot run it, so it cannot be checked ({reason[:240]})", fix=fix
        ) from error
    parts = [
        f"{halved} of {len(weights)} weights and the activations in {step.number}, embedding tables too",
        "inputs and outputs unchanged",
    ]
    if cut.nodes:
        parts.append(f"{len(cut.nodes)} nodes that make ids and masks of float inputs kept exact")
    parts.append("for GPUs: an x86 CPU runs it slower than float32")
    return StepRecord(
        kind="to_half",
        settings={"number": step.number, "runs_on": step.runs_on, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={"weights_halved": float(halved), "exact_nodes": float(len(cut.nodes))},
    )


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with every node behind those it reads: the tool appends what it inserts."""
    graph = ir.from_proto(model)
    graph.graph.sort()
    return ir.to_proto(graph)


def _check_weights(weights: dict[str, np.ndarray], step: ToHalf, where: str) -> None:
    """Raise RefusedStep when there is nothing to convert, or a weight is too large; single numbers (the -1e9 of masks) may be."""
    if not any(array.size > 1 for array in weights.values()):
        raise RefusedStep(where, "has no float32 weights to convert", fix="this step is for models as exported, before quantization")
    for name, array in weights.items():
        largest = float(np.abs(array).max(initial=0.0))
        if step.number == "fp16" and array.size > 1 and largest > _LARGEST_HALF:
            fix = "scale the feature it belongs to down before training, or use bf16"
            raise RefusedStep(where, f"'{name}' holds {largest:.4g}, and fp16 ends at {_LARGEST_HALF:g}", fix=fix)


def _to_bfloat16(model: onnx.ModelProto, weights: dict[str, np.ndarray]) -> None:
    """Write bfloat16 wherever the tool wrote float16: the same bits of exponent as float32, fewer of precision."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            full = weights.get(tensor.name, onnx.numpy_helper.to_array(tensor).astype(np.float32))
            tensor.CopyFrom(ir.to_proto(ir.tensor(full.astype(ir.DataType.BFLOAT16.numpy()), name=tensor.name)))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT16:
                full = onnx.numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.CopyFrom(ir.to_proto(ir.tensor(full.astype(ir.DataType.BFLOAT16.numpy()))))
    for value in model.graph.value_info:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
