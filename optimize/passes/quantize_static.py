"""Static int8 by neural-compressor: ranges calibrated on requests, weights and activations quantized, written as ONNX Q/DQ."""

from __future__ import annotations

import onnx_ir as ir
import torch
from onnxscript import optimizer

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...core.signature import Signature
from ...recipes.steps import QuantizeStatic
from ...runtime.archive import quiet
from ...runtime.program import ROWS
from ..context import StepContext
from ..convert.onnx_graph import save, to_onnx
from ..convert.tracing import trace_flat
from ..loading import Module, Program, Source
from ..samples import Samples

_CHUNK_ROWS = 64
_EVERYTHING_BYTES = 2**31


def quantize_static(step: QuantizeStatic, context: StepContext) -> StepRecord:
    """Calibrate on the requests' rows in PyTorch (PT2E, `StaticQuantConfig`), convert, export with the weights folded to int8.

    Embedding tables stay as they are. Raises RefusedStep without the PyTorch original or real requests, when neural-compressor fails, and
    when it quantized nothing, which it does not say itself; UnknownName for an excluded layer that does not exist.
    """
    where = f"quantize --static {context.where}"
    if context.original is None:
        fix = "give model.pt or train.py:make_model instead of an artifact, and make this the first step"
        raise RefusedStep(where, "needs the PyTorch model, and an artifact holds only ONNX", fix=fix)
    if not context.calibrated:
        raise RefusedStep(where, "needs real requests to calibrate on", fix="add --requests FILE")
    module = _graph_of(context, context.original, where)
    _show_linear_layers(module, step, where)
    with quiet():
        try:
            quantized = _calibrated(module, step, context)
            program = torch.export.export(quantized, _arguments(context, 7), dynamic_shapes=_dynamic(context.signature))
            model = to_onnx(program, context.signature, where)
        except Exception as error:  # neural-compressor and torch raise whatever they trip over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            fix = "use dynamic int8 instead: optimize quantize MODEL --int8"
            raise RefusedStep(where, f"neural-compressor cannot quantize this model ({reason[:240]})", fix=fix) from error
    if step.reduce_range:
        _halve_weights(model)
    _fold_weights(model)
    linear = [node for node in model.graph if node.op_type in {"Gemm", "MatMul"}]
    done = [node.name or "" for node in linear if _reads_int8(node)]
    if not done:
        raise RefusedStep(
            where, "neural-compressor quantized nothing in this model", fix="use dynamic int8: optimize quantize MODEL --int8"
        )
    save(model, context.target)
    bits = "7-bit weights, safe without VNNI" if step.reduce_range else "8-bit weights, for CPUs with VNNI"
    ranges = f"{step.observer} ranges from {context.samples.size} rows by neural-compressor"
    return StepRecord(
        kind="quantize_static",
        settings={"observer": step.observer, "reduce_range": step.reduce_range, "exclude": ",".join(step.exclude)},
        summary=f"{len(done)} of {len(linear)} MatMul/Gemm in int8 ({', '.join(done)}); {bits}; {ranges}; embedding tables untouched",
        numbers={"nodes_quantized": float(len(done)), "calibration_rows": float(context.samples.size)},
    )


def _graph_of(context: StepContext, source: Source, where: str) -> torch.fx.GraphModule:
    """The original as a graph that takes the signature's tensors by position."""
    if not isinstance(source, Module | Program):
        raise RefusedStep(where, "needs the PyTorch model, and this is an ONNX file already")
    module = trace_flat(source, context.signature, context.samples).module(check_guards=False)
    if not isinstance(module, torch.fx.GraphModule):
        raise AssertionError("an exported program is a graph module")
    return module


def _show_linear_layers(module: torch.fx.GraphModule, step: QuantizeStatic, where: str) -> None:
    """Write linear layers as `torch.nn.functional.linear`, by which the quantizer knows them; excluded ones stay unknown to it."""
    nodes = {str(node.args[1].target).removesuffix(".weight"): node for node in module.graph.nodes if _is_linear(node)}
    for name in step.exclude:
        if name not in nodes:
            raise UnknownName(where, "layer", name, nodes)
    for name, node in nodes.items():
        if name not in step.exclude:
            node.target = torch.nn.functional.linear
    module.recompile()


def _is_linear(node: torch.fx.Node) -> bool:
    return node.target is torch.ops.aten.linear.default and isinstance(node.args[1], torch.fx.Node)


def _calibrated(module: torch.fx.GraphModule, step: QuantizeStatic, context: StepContext) -> torch.nn.Module:
    """`module` with observers, run on all sample rows, converted."""
    from neural_compressor.torch.export import export as prepare_export  # noqa: PLC0415 - takes seconds, and only here
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare  # noqa: PLC0415

    # neural-compressor calls eval(), which a module that came from an archive refuses although it is in that mode already.
    object.__setattr__(module, "eval", lambda: module)
    exported = prepare_export(module, _arguments(context, 7), dynamic_shapes=_dynamic(context.signature))
    observed = prepare(exported, StaticQuantConfig(act_algo=step.observer))
    with torch.no_grad():
        for start in range(0, context.samples.size, _CHUNK_ROWS):
            observed(*_chunk(context.samples, context.signature, start))
    converted = convert(observed)
    if not isinstance(converted, torch.nn.Module):
        raise TypeError("convert gave no module")
    return converted


def _arguments(context: StepContext, rows: int) -> tuple[torch.Tensor, ...]:
    feeds = context.samples.rows(rows)
    return tuple(torch.from_numpy(feeds[spec.name]) for spec in context.signature.inputs)


def _chunk(samples: Samples, signature: Signature, start: int) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(samples.pool[spec.name][start : start + _CHUNK_ROWS].copy()) for spec in signature.inputs)


def _dynamic(signature: Signature) -> tuple[dict[int, object], ...]:
    """Which dimensions vary, per input."""
    rows = torch.export.Dim(ROWS, min=1)
    return tuple(
        {axis: rows if axis == 0 else torch.export.Dim.AUTO for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for spec in signature.inputs
    )


def _halve_weights(model: ir.Model) -> None:
    """Double the scale of every weight, so that its int8 values stay within [-64, 64] and U8S8 sums cannot overflow on AVX2."""
    doubled: set[str] = set()
    for node in model.graph:
        if node.op_type != "QuantizeLinear" or node.inputs[0] is None or node.inputs[0].const_value is None:
            continue
        scale = node.inputs[1]
        if scale is not None and scale.const_value is not None and scale.name not in doubled:
            scale.const_value = ir.tensor(scale.const_value.numpy() * 2, name=scale.name)
            doubled.add(scale.name or "")


def _fold_weights(model: ir.Model) -> None:
    """Compute constant Q nodes now, so that the file holds int8 weights; DQ stays, that is how ONNX Runtime sees what to fuse."""
    optimizer.fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=_EVERYTHING_BYTES,
        output_size_limit=_EVERYTHING_BYTES,
        should_fold=lambda node: True if node.op_type in {"QuantizeLinear", "Clip"} else None,
    )


def _reads_int8(node: ir.Node) -> bool:
    """Whether the weight comes from an int8 constant through DequantizeLinear (and perhaps a Transpose)."""
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    if producer is not None and producer.op_type == "Transpose" and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    if producer is None or producer.op_type != "DequantizeLinear" or producer.inputs[0] is None:
        return False
    weight = producer.inputs[0].const_value
    return weight is not None and weight.dtype == ir.DataType.INT8
