"""Structured pruning: hidden units between two linear layers go, and both matrices become smaller."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import Prune
from ...runtime.onnx_file import load
from ..context import StepContext
from ..convert.onnx_graph import save
from .hidden_layers import HiddenLayer, find_hidden_layers, matrix_of
from .observe import mean_magnitudes


def prune(step: Prune, context: StepContext) -> StepRecord:
    """Keep the share `keep` of every hidden layer's units, the most important ones.

    With real requests a unit's importance is its mean |activation| times the norm of its outgoing weights; without them the norm of its
    incoming weights takes the activation's place (weight norms as importance: Li et al. 2017, arXiv:1608.08710). The model is written only
    when it is whole. Raises RefusedStep when there is no such layer, or when rounding up to `multiple_of` would keep every unit.
    """
    where = f"prune {context.where}"
    model = load(context.source, where)
    layers = find_hidden_layers(model)
    for name in step.exclude:
        if name not in {layer.name for layer in layers}:
            raise UnknownName(where, "hidden layer", name, [layer.name for layer in layers])
    layers = [layer for layer in layers if layer.name not in step.exclude]
    if not layers:
        problem = "no linear layer is followed by elementwise operations and then another linear layer"
        raise RefusedStep(where, problem, fix="pruning works on MLP-like parts; this model has none left")
    kept = {layer.name: _units_to_keep(step, layer.width) for layer in layers}
    if all(kept[layer.name] == layer.width for layer in layers):
        widths = ", ".join(f"{layer.name} {layer.width}" for layer in layers)
        fix = "choose a smaller keep or multiple_of"
        raise RefusedStep(where, f"keep {step.keep:g} rounded up to multiples of {step.multiple_of} keeps every unit ({widths})", fix=fix)
    activations = mean_magnitudes(context, [layer.sink_input for layer in layers]) if context.calibrated else {}
    before = _weights(model)
    lines = []
    for layer in layers:
        count = kept[layer.name]
        if count < layer.width:
            importance = _importance(layer, activations.get(layer.sink_input))
            # A stable sort: equal importance keeps the earlier unit, so the same input gives the same model.
            chosen = np.sort(np.argsort(-importance, kind="stable")[:count])
            layer.shrink(model, chosen)
        lines.append(f"{layer.name} {layer.width} -> {count}")
    _drop_unused(model)
    save(model, context.target)
    measured = "activations on real requests" if context.calibrated else "weights alone"
    return StepRecord(
        kind="prune",
        settings={"keep": step.keep, "multiple_of": step.multiple_of, "exclude": ",".join(step.exclude)},
        summary=f"{', '.join(lines)} units; importance from {measured}",
        numbers={
            "units_before": float(sum(x.width for x in layers)),
            "units_after": float(sum(kept.values())),
            "weights_removed": before - _weights(model),
        },
    )


def _units_to_keep(step: Prune, width: int) -> int:
    # 0.7 * 10 is 7.000000000000001 in floating point; without rounding first it would keep 8.
    wanted = math.ceil(round(step.keep * width, 9))
    return min(width, math.ceil(wanted / step.multiple_of) * step.multiple_of)


def _importance(layer: HiddenLayer, activation: np.ndarray | None) -> np.ndarray:
    """float64 `[width]`."""
    outgoing = np.sqrt(sum((matrix_of(sink, layer.width, incoming=False) ** 2).sum(axis=1) for sink in layer.sinks))
    incoming = np.sqrt((matrix_of(layer.source, layer.width, incoming=True) ** 2).sum(axis=0))
    return np.asarray(outgoing * (incoming if activation is None else activation), dtype=np.float64)


def _weights(model: ir.Model) -> float:
    return float(sum(v.const_value.size for v in model.graph.initializers.values() if v.const_value is not None))


def _drop_unused(model: ir.Model) -> None:
    unused = [name for name, value in model.graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        model.graph.initializers.pop(name)
