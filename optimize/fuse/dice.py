"""Dice, the activation of DIN, in three elementwise passes instead of five."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from ..rewrites.graph_pattern import Pattern, unify
from .edit import const, constant, insert, replace


def _either(name: str, one: Pattern, other: Pattern) -> list[Pattern]:
    return [(name, one, other), (name, other, one)]


_KEPT = _either("Mul", "gate", "x")
_SCALED: list[Pattern] = list(
    itertools.chain(
        *(_either("Mul", inner, "x") for inner in _either("Mul", "alpha", ("Sub", "one", "gate"))),
        *(_either("Mul", inner, "alpha") for inner in _either("Mul", "x", ("Sub", "one", "gate"))),
        *(_either("Mul", inner, ("Sub", "one", "gate")) for inner in _either("Mul", "x", "alpha")),
    )
)
# A gate g with a slope below it: alpha (1 - g) x + g x (Zhou et al. 2018, arXiv:1706.06978, equation 3).
_DICE = _either("Add", _SCALED, _KEPT)


def shorten_dice(model: ir.Model) -> int:
    """`alpha * (1 - g) * x + g * x` as `x * (alpha + (1 - alpha) * g)`, and as `x * g` where alpha is 0; returns how many were found."""
    changed = 0
    for node in list(model.graph):
        bound: dict[str, ir.Value] = {}
        if node.op_type != "Add" or not unify(node.outputs[0], _DICE, bound):
            continue
        alpha, one = const(bound["alpha"]), const(bound["one"])
        if alpha is None or one is None or alpha.dtype.kind != "f" or one.size != 1 or float(one.reshape(())) != 1.0:
            continue
        factor = bound["gate"]
        if alpha.any():
            rest = constant(model, np.asarray(1, alpha.dtype) - alpha, f"{bound['alpha'].name}_rest")
            factor = insert(node, "Add", [insert(node, "Mul", [factor, rest]), bound["alpha"]])
        replace(node, "Mul", [bound["x"], factor])
        changed += 1
    return changed
