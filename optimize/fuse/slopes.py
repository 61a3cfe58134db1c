"""PRelu by kernels that work on many numbers at once: ONNX Runtime computes a PRelu number by number."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import const, constant, insert, replace


def replace_prelu(model: ir.Model) -> int:
    """PRelu with a constant slope as LeakyRelu (one slope), as `max(x, slope x)` or in two halves; returns how many were found."""
    changed = 0
    for node in list(model.graph):
        slope = const(node.inputs[1]) if node.op_type == "PRelu" and node.domain == "" else None
        if slope is None or slope.dtype != np.float32:
            continue
        x = node.inputs[0]
        if np.unique(slope).size == 1:
            replace(node, "LeakyRelu", [x], {"alpha": float(slope.reshape(-1)[0])})
        elif (slope > 0).all() and (slope <= 1).all():
            replace(node, "Max", [x, insert(node, "Mul", [x, node.inputs[1]])])
        else:
            zero = constant(model, np.zeros((), np.float32), "zero")
            below = insert(node, "Mul", [insert(node, "Min", [x, zero]), node.inputs[1]])
            replace(node, "Add", [insert(node, "Relu", [x]), below])
        changed += 1
    return changed
