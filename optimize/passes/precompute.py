"""Precomputing: sub-graphs of one id become tables."""

from __future__ import annotations

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep
from ...recipes.steps import Precompute
from ...runtime.onnx_file import load
from ..context import StepContext
from ..convert.onnx_graph import opset_of, save
from ..cost.cost import cost_of
from ..fuse.fuse import OLDEST_OPSET
from ..precompute.precompute import precompute_model


def precompute(step: Precompute, context: StepContext) -> StepRecord:
    """Compute for every id what depends on one id alone, within `max_mib` of new tables.

    Raises RefusedStep when nothing does, when it would be no less work, or when no table fits.
    """
    where = f"precompute {context.where}"
    model = load(context.source, where)
    if opset_of(model) < OLDEST_OPSET:
        fix = "export the model again: optimize export writes opset 18 and later"
        raise RefusedStep(where, f"the model is written for opset {opset_of(model)}, the rules for {OLDEST_OPSET} and later", fix=fix)
    before = cost_of(model, context.signature)
    done, too_large = precompute_model(model, int(step.max_mib * 2**20))
    if not done:
        if too_large:
            raise RefusedStep(where, f"no new table fits {step.max_mib:g} MiB: {', '.join(too_large[:3])}", fix="raise max_mib")
        fix = "use fuse or hoist_request first: they can bring a linear layer next to a lookup"
        raise RefusedStep(where, "nothing depends on one id alone that would be less work as a lookup", fix=fix)
    after = cost_of(model, context.signature)
    save(model, context.target)
    saved, added = before.flops.total - after.flops.total, after.weight_bytes - before.weight_bytes
    tables = ", ".join(f"{one.name} ({one.nodes} nodes) from a table of {one.rows} x {one.width}" for one in done)
    request = f"{saved / 1e6:.2f} million FLOPs fewer per request of {before.sizes.candidates} candidates"
    left = f"; did not fit {step.max_mib:g} MiB: {', '.join(too_large[:3])}" if too_large else ""
    return StepRecord(
        kind="precompute",
        settings={"max_mib": step.max_mib},
        summary=f"{tables}; {request}; {added / 2**20:+.1f} MiB{left}",
        numbers={"flops_saved": float(saved), "mib_added": added / 2**20, "tables": float(len(done))},
    )
