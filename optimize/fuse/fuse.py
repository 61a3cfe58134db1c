"""Exact clean-ups of a graph, rule by rule until none finds anything more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import onnx_ir as ir

from ..rewrites.tidy import tidy
from .affine import fold_after, fold_before
from .batch_norm import unroll_batch_norm
from .concats import flatten_concats, share_concats
from .dice import shorten_dice
from .dims import inferred_shapes, refresh
from .edit import drop_unused
from .equal_constants import share_constants
from .expands import drop_expands
from .flat import flatten_linears, sink_reshapes
from .identities import drop_identities
from .parallel import join_linears
from .slopes import replace_prelu
from .splits import join_slices, share_casts
from .transposes import drop_transposes
from .views import shorten_views

Rule = Callable[[ir.Model], int]

# In this order: later rules find what earlier ones leave.
_RULES: dict[str, Rule] = {
    "constants stored twice": share_constants,
    "nodes that change nothing": drop_identities,
    "transposes around elementwise work": drop_transposes,
    "batch normalisations": unroll_batch_norm,
    "constants into linear layers": fold_after,
    "constants into the next linear layer": fold_before,
    "Dice activations": shorten_dice,
    "slow activations": replace_prelu,
    "repeated operands": drop_expands,
    "casts of columns": share_casts,
    "concatenations of the same": share_concats,
    "nested concatenations": flatten_concats,
    "shapes of shapes": shorten_views,
    "linear layers of the same input": join_linears,
    "linear layers on sequences": flatten_linears,
    "elementwise work on sequences": sink_reshapes,
}
# Last: a Split hides from the rules above that its parts come from one tensor.
_LAST: dict[str, Rule] = {"slices of one tensor": join_slices}
_ROUNDS = 8
# Axes and lengths are inputs of Squeeze, Unsqueeze, Split and ReduceSum from here on.
OLDEST_OPSET = 13


def fuse_model(model: ir.Model) -> dict[str, int]:
    """Apply every rule to `model`, in place; gives how often each found something, rules that found nothing left out.

    The main graph only: what branches and loops hold stays as it is. Shapes that the file states between inputs and outputs are dropped.
    """
    counts = Counter[str]()
    before = len(model.graph)
    with inferred_shapes(model):
        tidy(model)
        counts["folded, merged or read by nobody"] = before - len(model.graph)
        for _ in range(_ROUNDS):
            if not _apply(_RULES, model, counts):
                break
        _apply(_LAST, model, counts)
    return {name: count for name, count in counts.items() if count > 0}


def _apply(rules: dict[str, Rule], model: ir.Model, counts: Counter[str]) -> bool:
    """One round; says whether any rule found something."""
    found = False
    for name, rule in rules.items():
        refresh(model)
        count = rule(model)
        if count:
            counts[name] += count
            drop_unused(model)
            found = True
    if found:
        tidy(model)
    return found
