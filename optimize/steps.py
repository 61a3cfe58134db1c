"""The one door from a step's type to the function that does it."""

from __future__ import annotations

from typing import assert_never

from ..core.artifact import StepRecord
from ..core.signature import Signature
from ..recipes.steps import (
    Blend,
    CompressTables,
    Fuse,
    HoistRequest,
    LowRank,
    Precompute,
    Prune,
    PruneHeads,
    QuantizeDynamic,
    QuantizeStatic,
    QuantizeWeights,
    SmoothActivations,
    Sparsify,
    Step,
    ToHalf,
    TrimTables,
    TuneStatic,
)
from .context import StepContext


def run_step(step: Step, context: StepContext) -> tuple[StepRecord, Signature]:
    """Write the model after `step` to `context.target`; gives what was done and the signature of what was written.

    Each technique is imported only when it is used: it brings its own heavy tools.
    """
    # ruff: noqa: PLC0415, PLR0911, PLR0912 - one case per technique, each with its import
    same = context.signature
    match step:
        case HoistRequest():
            from .passes.hoist_request import hoist_request

            return hoist_request(step, context)
        case QuantizeDynamic():
            from .passes.quantize_dynamic import quantize_dynamic

            return quantize_dynamic(step, context), same
        case QuantizeStatic():
            from .passes.quantize_static import quantize_static

            return quantize_static(step, context), same
        case TuneStatic():
            from .passes.tune_static import tune_static

            return tune_static(step, context), same
        case QuantizeWeights():
            from .passes.quantize_weights import quantize_weights

            return quantize_weights(step, context), same
        case SmoothActivations():
            from .passes.smooth_activations import smooth_activations

            return smooth_activations(step, context), same
        case ToHalf():
            from .passes.to_half import to_half

            return to_half(step, context), same
        case Prune():
            from .passes.prune import prune

            return prune(step, context), same
        case Fuse():
            from .passes.fuse import fuse

            return fuse(step, context), same
        case LowRank():
            from .passes.low_rank import low_rank

            return low_rank(step, context), same
        case PruneHeads():
            from .passes.prune_heads import prune_heads

            return prune_heads(step, context), same
        case Sparsify():
            from .passes.sparsify import sparsify

            return sparsify(step, context), same
        case Precompute():
            from .passes.precompute import precompute

            return precompute(step, context), same
        case CompressTables():
            from .passes.compress_tables import compress_tables

            return compress_tables(step, context), same
        case TrimTables():
            from .passes.trim_tables import trim_tables

            return trim_tables(step, context), same
        case Blend():
            from .passes.blend import blend

            return blend(step, context), same
        case _:
            assert_never(step)
