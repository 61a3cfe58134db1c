"""Exact clean-ups of the graph: what costs a node and changes no number goes."""

from __future__ import annotations

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import Fuse
from ...runtime.onnx_file import load
from ..context import StepContext
from ..convert.onnx_graph import opset_of, save
from ..fuse.fuse import OLDEST_OPSET, fuse_model


def fuse(_: Fuse, context: StepContext) -> StepRecord:
    """Apply the rules of `optimize/fuse`; raises RefusedStep when none finds anything, or for operators of before opset 13."""
    where = f"fuse {context.where}"
    model = load(context.source, where)
    if opset_of(model) < OLDEST_OPSET:
        fix = "export the model again: optimize export writes opset 18 and later"
        raise RefusedStep(where, f"the model is written for opset {opset_of(model)}, the rules for {OLDEST_OPSET} and later", fix=fix)
    before = len(model.graph)
    counts = fuse_model(model)
    if not counts:
        raise RefusedStep(where, f"no rule found anything to do among {before} nodes", fix="leave this step out for this model")
    save(model, context.target)
    found = ", ".join(f"{count} {name}" for name, count in counts.items())
    return StepRecord(
        kind="fuse",
        settings={},
        summary=f"{before} -> {len(model.graph)} nodes: {found}",
        numbers={"nodes_before": float(before), "nodes_after": float(len(model.graph))},
    )
