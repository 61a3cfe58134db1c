"""Attention heads that are missed least go, with their queries, keys and values; the projection behind is fitted anew."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import PruneHeads
from ..context import StepContext
from ..convert.onnx_graph import save
from .attention_heads import Attention, find_attentions
from .least_squares import Part, elimination, refit
from .linears import add_to_bias, bias_place, drop_unused, matrix_of, prepared, set_matrix, weights_of
from .observe import learn, score_error
from .work import work_of

_ROWS_PER_WEIGHT = 3


def prune_heads(step: PruneHeads, context: StepContext) -> StepRecord:
    """Keep the share `keep` of every attention's heads.

    Heads go one after the other, each time the one whose loss, with the output projection's other weights fitted anew by least squares on
    calibration requests, changes the projection's output least (see `elimination`). What is left computes exactly what these heads computed
    before: this is checked on the requests. Raises RefusedStep when the graph has no such attention, when every head would stay, when there
    are no requests or too few rows, and when the check fails.
    """
    where = f"prune_heads {context.where}"
    if not context.calibrated:
        raise RefusedStep(where, "which heads matter can only be seen on requests, and there are none", fix="add --requests FILE")
    model, original = prepared(context.source, where), prepared(context.source, where)
    found = find_attentions(model, context.signature)
    for name in step.exclude:
        if name not in {one.name for one in found}:
            raise UnknownName(where, "attention", name, [one.name for one in found])
    chosen = [one for one in found if one.name not in step.exclude]
    if not chosen:
        problem = "no attention whose heads are told apart by constant shapes between its projections"
        raise RefusedStep(
            where, problem, fix="heads are pruned in transformer encoders as torch.onnx writes them; this model has none left"
        )
    if all(math.ceil(step.keep * one.heads) == one.heads for one in chosen):
        counts = ", ".join(f"{one.name} {one.heads}" for one in chosen)
        raise RefusedStep(where, f"keep {step.keep:g} keeps every head ({counts})", fix="choose a smaller keep")
    before = work_of(model, context.signature)
    lines, heads = [], [0, 0]
    for number, attention in enumerate(chosen):
        context.progress("pruning heads", number, len(chosen))
        count = math.ceil(round(step.keep * attention.heads, 9))
        error = _shrink(model, original, attention, count, context=context)
        lines.append(f"{attention.name} {attention.heads} -> {count} (error {error:.2g})")
        heads = [heads[0] + attention.heads, heads[1] + count]
    moved = score_error(original, model, context)
    drop_unused(model)
    save(model, context.target)
    return StepRecord(
        kind="prune_heads",
        settings={"keep": step.keep, "exclude": ",".join(step.exclude)},
        summary=f"{', '.join(lines)} heads; chosen and fitted anew by least squares on real requests",
        numbers={
            "heads_before": float(heads[0]),
            "heads_after": float(heads[1]),
            "weights_removed": weights_of(original) - weights_of(model),
            **work_of(model, context.signature).since(before),
            **moved,
        },
    )


def _shrink(model: ir.Model, original: ir.Model, attention: Attention, count: int, *, context: StepContext) -> float:
    """Keep `count` heads of one attention; gives the relative error of its projection on held-out requests."""
    node, gives = attention.projection, attention.projection.outputs[0].name or ""
    weights, bias = matrix_of(node), bias_place(node)
    [learned] = learn(original, model, [gives], context)[gives]
    wanted = _ROWS_PER_WEIGHT * count * attention.size
    if learned.fit.distinct < wanted:
        problem = f"'{gives}' has {learned.fit.distinct} different rows to fit {count * attention.size} weights on, {wanted} are needed"
        raise RefusedStep(f"prune_heads {context.where}", problem, fix=f"give more requests, or exclude {attention.name}")
    units = np.arange(len(weights)).reshape(attention.heads, attention.size)
    order = elimination([Part(learned.fit, weights, units, bias is not None)])
    kept = np.sort(order[attention.heads - count :])
    columns = units[kept].reshape(-1)
    judged = learned.held_out if learned.held_out.rows else learned.fit
    error = judged.error(refit(learned.fit, columns, weights, bias=bias is not None), columns)
    attention.keep(model, kept, context)
    fitted = refit(learned.both, columns, weights, bias=bias is not None)
    set_matrix(model, node, fitted[:-1])
    if bias is not None:
        add_to_bias(model, bias, fitted[-1])
    return error
