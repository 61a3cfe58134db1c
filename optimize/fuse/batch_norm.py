"""Batch normalisation at inference is a multiplication and an addition per channel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import const, constant, insert, only_reader, replace
from .linear import linear_of

_EPSILON = 1e-5  # ONNX's default
_CONSTANTS = 5


def scale_and_shift(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """`scale` and `shift` [channels], float64, with `y = x * scale + shift` (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2)."""
    if node.op_type != "BatchNormalization" or node.domain not in {"", "ai.onnx"} or node.attributes.get_int("training_mode", 0) != 0:
        return None
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        return None
    given = [const(value) for value in node.inputs[1:_CONSTANTS]]
    numbers = [value.astype(np.float64) for value in given if value is not None and value.dtype in (np.float32, np.float64)]
    if len(numbers) != _CONSTANTS - 1:
        return None
    weight, bias, mean, variance = numbers
    scale = weight / np.sqrt(variance + node.attributes.get_float("epsilon", _EPSILON))
    return scale, bias - mean * scale


def unroll_batch_norm(model: ir.Model) -> int:
    """Write a BatchNormalization beside a linear layer as Mul and Add, which the layer then takes in; elsewhere it stays."""
    changed = 0
    for node in list(model.graph):
        numbers = scale_and_shift(node)
        source = node.inputs[0]
        if numbers is None or source is None or not (_after_linear(source) or _before_linear(node.outputs[0])):
            continue
        dtype = np.float64 if node.inputs[1] is not None and node.inputs[1].dtype is ir.DataType.DOUBLE else np.float32
        scale, shift = (
            constant(model, array.astype(dtype), f"{node.name or 'norm'}_{name}")
            for array, name in zip(numbers, ("scale", "shift"), strict=True)
        )
        replace(node, "Add", [insert(node, "Mul", [source, scale]), shift])
        changed += 1
    return changed


def _after_linear(source: ir.Value) -> bool:
    """Channels are axis 1: the last one only where there are two."""
    node = source.producer()
    if source.shape is None or len(source.shape) != 2 or only_reader(source) is None or node is None:
        return False
    if node.op_type == "Add":
        return any(linear_of(value.producer()) is not None for value in node.inputs if value is not None)
    return linear_of(node) is not None


def _before_linear(result: ir.Value) -> bool:
    reader = only_reader(result)
    return result.shape is not None and len(result.shape) == 2 and reader is not None and linear_of(reader) is not None
