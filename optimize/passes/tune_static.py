"""Static int8 tuned by neural-compressor: the first configuration that keeps every segment's quality, written as ONNX Q/DQ."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import onnx_ir as ir
import torch

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...core.signature import Signature
from ...recipes.steps import TuneStatic
from ...runtime.archive import quiet
from ...runtime.program import ROWS
from ..context import StepContext
from ..convert.onnx_graph import save, to_onnx
from ..convert.tracing import trace_flat
from ..loading import Module, Program, Source
from .calibration import Feeds, calibration_feeds
from .kernels import int8_kernels
from .number_format import weight_numbers
from .qdq import fold_weights, free_relus, halve_weights, quantize_biases, reads_int8
from .segment_quality import SegmentQuality
from .sensitivity import answers

_OTHERWISE = "use --static without --tune, or dynamic int8: optimize quantize MODEL --int8"


def tune_static(step: TuneStatic, context: StepContext) -> StepRecord:
    """Let neural-compressor's `autotune` try configurations in order of speed, export the first that keeps quality, and judge it again.

    Quality is the worst segment's NDCG@10 over that of the float model, on the labelled requests. autotune gives its best configuration
    even when that failed, without saying so; such a one is refused here, and so is one that falls short in ONNX Runtime. Embedding tables
    stay as they are. Raises RefusedStep without the PyTorch original or labelled requests, when neural-compressor fails, and when it
    quantized nothing, which it does not say itself; UnknownName for an excluded layer that does not exist.
    """
    where = f"quantize --tune {context.where}"
    if context.original is None:
        fix = "give model.pt or train.py:make_model instead of an artifact, and make this the first step"
        raise RefusedStep(where, "needs the PyTorch model, and an artifact holds only ONNX", fix=fix)
    feeds = calibration_feeds(context, where)
    quality = SegmentQuality.of(context, where)
    trials: list[tuple[str, float]] = []
    model, plans = _searched(step, context, _Judging(feeds, quality, trials), where)
    chosen, promised = max(trials, key=lambda trial: trial[1])
    if promised < 1 - step.tolerance:
        tried = ", ".join(f"{name} {ratio:.4f}" for name, ratio in trials)
        problem = f"no configuration keeps {1 - step.tolerance:g} of every segment's NDCG@10: {tried}"
        raise RefusedStep(where, problem, fix="allow a larger tolerance, or quantize dynamically: optimize quantize MODEL --int8")
    numbers = weight_numbers(step.format)
    linear, done = _in_integers(model, numbers.bits, where)
    save(model, context.target)
    worst = quality.worst(answers(context.target, context.signature, quality.feeds))
    kernels = int8_kernels(context.target)
    if worst.ratio < 1 - step.tolerance or not kernels:
        context.target.unlink()
        found = "every node in float" if not kernels else f"{worst.ratio:.4f} of NDCG@10 in segment '{worst.segment}'"
        problem = f"'{chosen}' kept {promised:.4f} in PyTorch, but ONNX Runtime gives {found}"
        raise RefusedStep(where, problem, fix="allow a larger tolerance, or quantize with --static alone")
    parts = [
        f"{len(done)} of {linear} MatMul/Gemm in int8 ({', '.join(done)})",
        numbers.note,
        f"neural-compressor's choice after {len(trials)} of {plans} configurations: {chosen}",
        f"worst segment '{worst.segment}' keeps {worst.ratio:.4f} of its NDCG@10 in ONNX Runtime ({promised:.4f} in PyTorch)",
        f"ranges from {len(feeds)} requests, judged on {len(quality.feeds)}",
        "embedding tables untouched",
    ]
    if kernels < len(done):
        parts.append(f"{len(done) - kernels} of them run in float all the same in ONNX Runtime")
    return StepRecord(
        kind="tune_static",
        settings={"tolerance": step.tolerance, "format": step.format, "exclude": ",".join(step.exclude)},
        summary="; ".join(parts),
        numbers={
            "nodes_quantized": float(len(done)),
            "int8_kernels": float(kernels),
            "calibration_requests": float(len(feeds)),
            "worst_segment_ratio": worst.ratio,
            **{f"ratio {name}": ratio for name, ratio in trials},
        },
    )


def _searched(step: TuneStatic, context: StepContext, judging: _Judging, where: str) -> tuple[ir.Model, int]:
    """The model of autotune's choice, in ONNX, and how many configurations it had to choose from."""
    if context.original is None:
        raise AssertionError("asked for before")
    with quiet():
        try:
            module = _graph_of(context, context.original, where)
            plans = _plans(_show_linear_layers(module, step, where))
            tuned = _tuned(module, plans, step, context, judging)
            program = torch.export.export(tuned, _arguments(context, 7), dynamic_shapes=_dynamic(context.signature))
            return to_onnx(program, context.signature, where), len(plans)
        except (RefusedStep, UnknownName):
            raise
        except Exception as error:  # neural-compressor and torch raise whatever they trip over
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise RefusedStep(where, f"neural-compressor cannot quantize this model ({reason[:240]})", fix=_OTHERWISE) from error


def _in_integers(model: ir.Model, bits: int, where: str) -> tuple[int, list[str]]:
    """Let ONNX Runtime find the layers that are quantized; gives the number of linear layers, and the names of those that read int8."""
    if bits < 8:
        halve_weights(model)
    fold_weights(model)
    quantize_biases(model)
    free_relus(model)
    linear = [node for node in model.graph if node.op_type in {"Gemm", "MatMul"}]
    done = [node.name or "" for node in linear if reads_int8(node)]
    if not done:
        raise RefusedStep(where, "neural-compressor quantized nothing in this model", fix=_OTHERWISE)
    return len(linear), done


class _Plan(msgspec.Struct, frozen=True):
    """A configuration to try: how ranges are found, and which layers stay in float."""

    observer: str
    in_float: tuple[str, ...]

    @property
    def name(self) -> str:
        kept = f", {' and '.join(self.in_float)} in float" if self.in_float else ""
        return f"{'all ' if not self.in_float else ''}int8 by {self.observer}{kept}"


class _Judging(msgspec.Struct, frozen=True):
    """Requests to calibrate on, what quality is measured by, and (configuration, share kept) of every one tried so far."""

    feeds: Feeds
    quality: SegmentQuality
    trials: list[tuple[str, float]]


def _plans(layers: list[str]) -> list[_Plan]:
    """What to try, fastest first: autotune stops at the first that is good enough. `layers` are in the order of the graph."""
    if len(layers) < 2:
        return [_Plan("minmax", ()), _Plan("kl", ())]
    first, last = layers[0], layers[-1]
    kept = [(), (last,), (first,), (first, last)] if len(layers) > 2 else [(), (last,), (first,)]
    return [_Plan(observer, names) for names in kept for observer in ("minmax", "kl")]


def _tuned(module: torch.fx.GraphModule, plans: list[_Plan], step: TuneStatic, context: StepContext, judging: _Judging) -> torch.nn.Module:
    """`module` as autotune leaves it; what each configuration tried keeps of the quality goes to `judging.trials`."""
    from neural_compressor.torch.export import export as prepare_export  # noqa: PLC0415 - takes seconds, and only here
    from neural_compressor.torch.quantization import StaticQuantConfig, TuningConfig, autotune  # noqa: PLC0415

    # neural-compressor calls eval(), which a module that came from an archive refuses although it is in that mode already.
    object.__setattr__(module, "eval", lambda: module)
    exported = prepare_export(module, _arguments(context, 7), dynamic_shapes=_dynamic(context.signature))
    _place_layers(exported)
    configs = []
    for plan in plans:
        config = StaticQuantConfig(act_algo=plan.observer)
        for name in plan.in_float:
            config.set_local(name, StaticQuantConfig(w_dtype="fp32", act_dtype="fp32"))
        configs.append(config)

    def calibrate(observed: torch.nn.Module) -> None:
        with torch.no_grad():
            for feed in judging.feeds:
                observed(*_tensors(feed, context.signature))

    calls = 0

    def judge(candidate: torch.nn.Module) -> float:
        nonlocal calls
        calls += 1
        if calls == 1:
            return 1.0  # the float model itself, which everything is compared with
        ratio = judging.quality.worst(_scores(candidate, context.signature, judging.quality.feeds)).ratio
        judging.trials.append((plans[calls - 2].name, ratio))
        context.progress("tuning", calls - 1, len(plans))
        return ratio

    tuning = TuningConfig(config_set=configs, tolerable_loss=step.tolerance, max_trials=len(configs))
    tuned = autotune(exported, tuning, eval_fn=judge, run_fn=calibrate, example_inputs=_arguments(context, 7))
    context.progress("tuning", len(plans), len(plans))
    if not isinstance(tuned, torch.nn.Module):
        raise TypeError("autotune gave no module")
    return tuned


def _scores(module: torch.nn.Module, signature: Signature, feeds: Feeds) -> list[np.ndarray]:
    """Ranking scores of each request, float64 `[candidates]`, in PyTorch."""
    found = []
    with torch.no_grad():
        for feed in feeds:
            said = module(*_tensors(feed, signature))
            outputs: Mapping[str, np.ndarray] = {
                spec.name: tensor.numpy()
                for spec, tensor in zip(signature.outputs, said if isinstance(said, tuple | list) else (said,), strict=True)
            }
            found.append(signature.scores(outputs, where="neural-compressor"))
    return found


def _graph_of(context: StepContext, source: Source, where: str) -> torch.fx.GraphModule:
    """The original as a graph that takes the signature's tensors by position."""
    if not isinstance(source, Module | Program):
        raise RefusedStep(where, "needs the PyTorch model, and this is another kind of file", fix=_OTHERWISE)
    module = trace_flat(source, context.signature, context.samples).module(check_guards=False)
    if not isinstance(module, torch.fx.GraphModule):
        raise AssertionError("an exported program is a graph module")
    return module


def _show_linear_layers(module: torch.fx.GraphModule, step: TuneStatic, where: str) -> list[str]:
    """Write linear layers as `torch.nn.functional.linear`, by which the quantizer knows them; excluded ones stay unknown to it.

    Gives the names of the layers shown, in the order of the graph.
    """
    nodes = {_layer(node): node for node in module.graph.nodes if _is_linear(node)}
    for name in step.exclude:
        if name not in nodes:
            raise UnknownName(where, "layer", name, nodes)
    shown = [name for name in nodes if name not in step.exclude]
    if not shown:
        raise RefusedStep(where, "no linear layer left to quantize", fix=_OTHERWISE)
    for name in shown:
        nodes[name].target = torch.nn.functional.linear
    module.recompile()
    return shown


def _is_linear(node: torch.fx.Node) -> bool:
    return node.target is torch.ops.aten.linear.default and isinstance(node.args[1], torch.fx.Node)


def _layer(node: torch.fx.Node) -> str:
    """The layer's name in the author's module (`inner` is our wrapper around it), from its weight's."""
    weight = node.args[1]
    return str(weight.target if isinstance(weight, torch.fx.Node) else node.name).removesuffix(".weight").removeprefix("inner.")


def _place_layers(module: torch.fx.GraphModule) -> None:
    """Say of every linear node which layer it is: a local configuration finds nodes by the module they come from."""
    for node in module.graph.nodes:
        if _is_linear(node):
            node.meta["nn_module_stack"] = {_layer(node): (_layer(node), torch.nn.Linear)}


def _arguments(context: StepContext, rows: int) -> tuple[torch.Tensor, ...]:
    return _tensors(context.samples.rows(rows), context.signature)


def _tensors(feed: Mapping[str, np.ndarray], signature: Signature) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.array(feed[spec.name])) for spec in signature.inputs)


def _dynamic(signature: Signature) -> tuple[dict[int, object], ...]:
    """Which dimensions vary, per input."""
    rows = torch.export.Dim(ROWS, min=1)
    return tuple(
        {axis: rows if axis == 0 else torch.export.Dim.AUTO for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for spec in signature.inputs
    )
