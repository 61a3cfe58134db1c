"""Cleaning up what PyTorch's exporter writes, without changing a number.

The exporter's own clean-up takes every constant below 1e-8 for zero and everything within 1e-5 of one for one, so that the `+ 1e-9` that
guards a division vanishes and a row of zeros becomes NaN (onnxscript 0.7, `rewriter/_pattern_ir.py`). Here only rules that are exact run.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules

_ROUNDS = 2
_EXACT = (
    *(rules.dropout_zero_rule, rules.dropout_inference_rule, rules.no_op_cast_rule, rules.no_op_expand_rule, rules.no_op_transpose_rule),
    *(rules.cast_constant_of_shape_rule, rules.cast_constant_of_shape_without_value_rule, rules.collapse_slice_rule),
    *(rules.flatten_to_reshape_rule, rules.reshape_reshape_rule, rules.squeeze_reshape_1d_rule, rules.unsqueeze_unsqueeze_rule),
    *(rules.transpose_transpose_rule, rules.no_op_static_scatter_nd_rule, rules.no_op_dynamic_scatter_nd_rule),
    *(rules.materialize_reshape_shape_rule, rules.one_reshape_matmul_reshape_rule, rules.two_reshapes_matmul_reshape_rule),
    *(rules.remove_optional_bias_from_gemm_rule, rules.remove_optional_bias_from_conv_rule),
)


def tidy(model: ir.Model) -> None:
    """Fold constants, drop what nobody reads and what does nothing, merge duplicates; in place, and exact."""
    common.InlinePass()(model)
    for _ in range(_ROUNDS):
        optimizer.fold_constants(model)
        rewriter.RewritePass(_EXACT)(model)
        common.RemoveUnusedNodesPass()(model)
    last = (
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]  # onnx_ir leaves it untyped
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    ir.passes.Sequential(*last)(model)
