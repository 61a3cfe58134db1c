"""Multiplications and additions by constants beside a linear layer become part of its matrix and its bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import dims_of
from .edit import bypass, const, constant, only_reader, replace
from .linear import Linear, linear_of, set_linear

_OPERATORS = {"Add", "Sub", "Mul", "Div"}


def fold_after(model: ir.Model) -> int:
    """`(x @ W) * s + t` as `x @ (W * s) + t`: returns how many nodes went."""
    changed = 0
    for node in list(model.graph):
        layer = linear_of(node)
        if layer is None or layer.weight.dtype not in (np.float32, np.float64):
            continue
        chain, scale, shift = _chain_after(layer)
        # Three axes and more: ONNX has no Gemm for them, and MatMul and Add are what there is already.
        flat = len(dims_of(node.inputs[0]) or ()) == 2
        pays = bool(chain) if flat else len(chain) > 1 or (len(chain) == 1 and not shift.any())
        weight, bias = layer.weight * scale, shift + (0.0 if layer.bias is None else layer.bias * scale)
        if not pays or not _storable(weight, bias, layer.weight.dtype):
            continue
        changed += len(chain) if flat or not bias.any() else len(chain) - 1
        if flat:
            set_linear(model, layer, weight, bias if layer.bias is not None or shift.any() else None)
            _skip(chain, node.outputs[0])
        else:
            set_linear(model, layer, weight, None)
            _skip(chain[:-1] if bias.any() else chain, node.outputs[0])
            if bias.any():
                replace(
                    chain[-1], "Add", [node.outputs[0], constant(model, bias.astype(layer.weight.dtype), f"{node.name or 'linear'}_bias")]
                )
    return changed


def _storable(weight: np.ndarray, bias: np.ndarray, dtype: np.dtype) -> bool:
    """Whether these numbers are finite in the precision of the layer."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(weight.astype(dtype)).all() and np.isfinite(bias.astype(dtype)).all())


def fold_before(model: ir.Model) -> int:
    """`(x * s + t) @ W` as `x @ (s * W) + t @ W`: returns how many nodes went."""
    changed = 0
    for node in list(model.graph):
        layer = linear_of(node)
        value = node.inputs[0] if layer is not None else None
        step = value.producer() if value is not None else None
        if (
            layer is None
            or value is None
            or step is None
            or layer.weight.dtype not in (np.float32, np.float64)
            or only_reader(value) is not node
        ):
            continue
        found = _affine(step, layer.weight.shape[0])
        if found is None:
            continue
        source, scale, shift = found
        added = shift @ layer.weight.astype(np.float64)
        # Without a bias of its own, a MatMul of three axes would only get an Add for the one that goes.
        if added.any() and len(dims_of(value) or ()) != 2:
            continue
        bias = added if layer.bias is None else added + layer.bias
        weight = scale[:, None] * layer.weight
        if not _storable(weight, bias, layer.weight.dtype):
            continue
        node.replace_input_with(0, source)
        set_linear(model, layer, weight, bias if layer.bias is not None or added.any() else None)
        changed += 1
    return changed


def _chain_after(layer: Linear) -> tuple[list[ir.Node], np.ndarray, np.ndarray]:
    """The nodes behind a layer that only scale and shift its outputs, and what they amount to, float64 [outputs]."""
    scale, shift, chain = np.ones(layer.outputs), np.zeros(layer.outputs), list[ir.Node]()
    value = layer.node.outputs[0]
    while (node := only_reader(value)) is not None:
        found = _affine(node, layer.outputs)
        if found is None or found[0] is not value or node.graph is not layer.node.graph:
            break
        scale, shift = scale * found[1], shift * found[1] + found[2]
        chain.append(node)
        value = node.outputs[0]
    return chain, scale, shift


def _affine(node: ir.Node, width: int) -> tuple[ir.Value, np.ndarray, np.ndarray] | None:
    """The value that `node` scales and shifts along its last axis, with scale and shift, float64 [width]."""
    if node.op_type not in _OPERATORS or node.domain not in {"", "ai.onnx"}:
        return None
    left, right = node.inputs
    number, value = (const(right), left) if const(right) is not None else (const(left), right)
    backwards = number is not None and const(right) is None
    if number is None or value is None or number.dtype not in (np.float32, np.float64) or not _per_output(number, value, width):
        return None
    vector = np.broadcast_to(number.astype(np.float64).reshape(-1), (width,))
    one, none = np.ones(width), np.zeros(width)
    match node.op_type:
        case "Add":
            return value, one, vector
        case "Sub":
            return (value, -one, vector) if backwards else (value, one, -vector)
        case "Mul":
            return value, vector, none
        case _:
            return None if backwards or not vector.all() else (value, 1 / vector, none)


def _per_output(number: np.ndarray, value: ir.Value, width: int) -> bool:
    """Whether `number` has one entry, or one per element of the last axis, and adds no axis to `value`."""
    dims = dims_of(value)
    if dims is None or number.ndim > len(dims) or dims[-1] != width:
        return False
    return number.size == 1 or (number.size == width and number.shape[-1] == width)


def _skip(chain: list[ir.Node], value: ir.Value) -> None:
    """Let what reads the end of a chain read its start."""
    if not chain:
        return
    last = chain[-1]
    for node in reversed(chain):
        if node is last:
            bypass(node, value)
        elif node.graph is not None:
            node.graph.remove(node, safe=True)
