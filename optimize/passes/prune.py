"""Structured pruning: hidden units between linear layers go, and the matrices on both sides become smaller."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import Prune
from ..context import StepContext
from ..convert.onnx_graph import save
from .hidden_layers import HiddenLayer, find_hidden_layers
from .linears import drop_unused, matrix_of, offset_of, prepared, weights_of
from .observe import learn, score_error
from .prune_layer import TooFewRows, Units
from .work import work_of


class _Done(msgspec.Struct, frozen=True):
    """What happened to one layer; `error` is the held-out relative output error behind it, None where nothing was measured."""

    name: str
    before: int
    after: int
    error: float | None = None
    note: str = ""

    @property
    def text(self) -> str:
        error = "" if self.error is None else f" (error {self.error:.2g})"
        return f"{self.name} {self.before} -> {self.after}{error}{self.note}"


def prune(step: Prune, context: StepContext) -> StepRecord:
    """Keep the share `keep` of every hidden layer's units, or as few as `max_error` allows.

    With calibration requests the layers are pruned one after the other, each as the layers pruned before it left it: units go in the order
    in which the layers behind can best do without them, and those layers' weights are fitted anew by least squares against what they gave
    in the model as it was. With `refit` off, a unit's importance is the root mean square of its activation times the norm of its outgoing
    weights; without requests the norm of its incoming weights takes the activation's place (weight norms as importance: Li et al. 2017,
    arXiv:1608.08710). With `max_error` the k-th of n layers may use the share sqrt(k/n) of it, so that errors that add in squares end at
    `max_error`. Raises RefusedStep when there is no such layer, when no unit would go, or when there are too few rows to fit on; the model
    is written only when it is whole.
    """
    where = f"prune {context.where}"
    model = prepared(context.source, where)
    layers = _layers(model, step, context, where)
    if step.max_error is not None and not context.calibrated:
        raise RefusedStep(where, "an error can only be measured on requests, and there are none", fix="add --requests FILE, or give keep")
    if step.keep is not None and all(_units_to_keep(step.keep, step, layer) == layer.width for layer in layers):
        widths = ", ".join(f"{layer.name} {layer.width}" for layer in layers)
        problem = f"keep {step.keep:g} rounded up to multiples of {step.multiple_of} keeps every unit ({widths})"
        raise RefusedStep(where, problem, fix="choose a smaller keep or multiple_of")
    before, original = work_of(model, context.signature), prepared(context.source, where)
    done = []
    for number, layer in enumerate(layers, start=1):
        context.progress("pruning", number - 1, len(layers))
        current = next(found for found in find_hidden_layers(model, context.signature) if found.key == layer.key)
        if context.calibrated:
            done.append(_on_requests(step, context, original, model, current, share=number / len(layers), where=where))
        else:
            done.append(_on_weights(step, model, current))
    if all(one.after == one.before for one in done):
        problem = f"no hidden layer can lose units within max_error {step.max_error:g}: {', '.join(one.text for one in done)}"
        raise RefusedStep(where, problem, fix="allow a larger max_error, a smaller multiple_of, or give more requests")
    moved = score_error(original, model, context) if context.calibrated else {}
    drop_unused(model)
    save(model, context.target)
    return StepRecord(
        kind="prune",
        settings={
            "keep": step.keep,
            "max_error": step.max_error,
            "refit": step.refit,
            "multiple_of": step.multiple_of,
            "exclude": ",".join(step.exclude),
        },
        summary=f"{', '.join(one.text for one in done)} units; {_how(step, context)}",
        numbers={
            "units_before": float(sum(one.before for one in done)),
            "units_after": float(sum(one.after for one in done)),
            "weights_removed": weights_of(original) - weights_of(model),
            **work_of(model, context.signature).since(before),
            **moved,
        },
    )


def _layers(model: ir.Model, step: Prune, context: StepContext, where: str) -> list[HiddenLayer]:
    found = find_hidden_layers(model, context.signature)
    for name in step.exclude:
        if name not in {layer.name for layer in found}:
            raise UnknownName(where, "hidden layer", name, [layer.name for layer in found])
    layers = [layer for layer in found if layer.name not in step.exclude]
    if not layers:
        problem = "no linear layer is followed by elementwise operations and then another linear layer"
        raise RefusedStep(where, problem, fix="pruning works on MLP-like parts; this model has none left")
    return layers


def _on_requests(
    step: Prune, context: StepContext, original: ir.Model, model: ir.Model, layer: HiddenLayer, *, share: float, where: str
) -> _Done:
    learned = learn(original, model, [sink.gives for sink in layer.sinks], context)
    units = Units.of(layer, learned, refitted=step.refit)
    if step.keep is not None:
        count = _units_to_keep(step.keep, step, layer)
        if count == layer.width:
            return _Done(layer.name, layer.width, layer.width)
        try:
            chosen = units.best(count)
        except TooFewRows as few:
            raise RefusedStep(where, few.text, fix=f"give more requests, exclude {layer.name}, or prune without refit") from None
    else:
        if step.max_error is None:
            raise AssertionError("a step has keep or max_error")
        try:
            chosen = units.within(step.max_error * math.sqrt(share), step.multiple_of)
        except TooFewRows as few:
            return _Done(layer.name, layer.width, layer.width, note=f" ({few.text})")
    error = units.error(chosen)
    units.apply(model, chosen)
    return _Done(layer.name, layer.width, len(chosen), error=error)


def _on_weights(step: Prune, model: ir.Model, layer: HiddenLayer) -> _Done:
    if step.keep is None:
        raise AssertionError("max_error needs requests")
    count = _units_to_keep(step.keep, step, layer)
    if count < layer.width:
        incoming = np.sqrt(sum(_columns(source) for source in layer.sources))
        outgoing = np.sqrt(sum(_outgoing(layer, sink.node, sink.span.offset) for sink in layer.sinks))
        # A stable sort: equal importance keeps the earlier unit, so the same input gives the same model.
        layer.shrink(model, np.sort(np.argsort(-incoming * outgoing, kind="stable")[:count]))
    return _Done(layer.name, layer.width, count)


def _columns(source: ir.Node) -> np.ndarray:
    """Squared norm of each unit's incoming weights and bias, float64 `[width]`."""
    matrix = matrix_of(source)
    return np.asarray((matrix**2).reshape(-1, matrix.shape[-1]).sum(axis=0) + offset_of(source) ** 2)


def _outgoing(layer: HiddenLayer, node: ir.Node, offset: int) -> np.ndarray:
    """Squared norm of each unit's outgoing weights, float64 `[width]`."""
    matrix = matrix_of(node)[..., offset : offset + layer.width, :]
    return np.asarray((np.swapaxes(matrix, -2, 0) ** 2).reshape(layer.width, -1).sum(axis=1))


def _units_to_keep(keep: float, step: Prune, layer: HiddenLayer) -> int:
    # 0.7 * 10 is 7.000000000000001 in floating point; without rounding first it would keep 8.
    wanted = math.ceil(round(keep * layer.width, 9))
    return min(layer.width, math.ceil(wanted / step.multiple_of) * step.multiple_of)


def _how(step: Prune, context: StepContext) -> str:
    if not context.calibrated:
        return "importance from weights alone, nothing fitted anew: there are no requests"
    if not step.refit:
        return "importance from activations on real requests"
    return "chosen and fitted anew by least squares on real requests"
