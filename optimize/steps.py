"""The one door from a step's type to the function that does it."""

from __future__ import annotations

from typing import assert_never

from ..core.artifact import StepRecord
from ..core.signature import Signature
from ..recipes.steps import Prune, QuantizeDynamic, QuantizeStatic, Step
from .context import StepContext


def run_step(step: Step, context: StepContext) -> tuple[StepRecord, Signature]:
    """Write the model after `step` to `context.target`; gives what was done and the signature of what was written.

    Each technique is imported only when it is used: it brings its own heavy tools.
    """
    # ruff: noqa: PLC0415
    same = context.signature
    match step:
        case QuantizeDynamic():
            from .passes.quantize_dynamic import quantize_dynamic

            return quantize_dynamic(step, context), same
        case QuantizeStatic():
            from .passes.quantize_static import quantize_static

            return quantize_static(step, context), same
        case Prune():
            from .passes.prune import prune

            return prune(step, context), same
        case _:
            assert_never(step)
