"""Batches of small products with one side in common, as one product."""

from __future__ import annotations

import onnx_ir as ir

from .facts import Shape, is_fixed, is_one, product, usual
from .label import axes_of
from .rewriting import Rewriting, is_constant


def shared_right(node: ir.Node, work: Rewriting) -> bool:
    """`[rows, m, k] [1, k, n]`: with its right side as a matrix it is one product, not one per row."""
    a, b = (work.shape(value) for value in node.inputs)
    if a is None or b is None or len(a) < 3 or len(b) < 3 or len(b) > len(a):
        return False
    if not all(is_one(size) for size in b[:-2]) or all(is_one(size) for size in a[:-2]):
        return False
    matrix = work.emit("Squeeze", [node.inputs[1], work.ints(*range(len(b) - 2))])
    work.replace(node.outputs[0], work.again(node, [node.inputs[0], matrix])[0])
    return True


def shared_left(node: ir.Node, work: Rewriting) -> bool:
    """`[1, m, k] [rows, k, n]` is the transpose of `[rows, n, k] [k, m]`, which is one product; only where turning costs nothing."""
    a, b = (work.shape(value) for value in node.inputs)
    value = node.inputs[1]
    if a is None or b is None or value is None or not 2 <= len(a) <= len(b) or len(b) < 3:
        return False
    if not all(is_one(size) for size in a[:-2]) or all(is_one(size) for size in b[:-2]):
        return False
    turned = _turned(value, b, work)
    if turned is None or not (is_one(a[-2]) or is_one(b[-1])):
        return False
    flat = node.inputs[0] if len(a) == 2 else work.emit("Squeeze", [node.inputs[0], work.ints(*range(len(a) - 2))])
    result = work.emit("MatMul", [turned, work.emit("Transpose", [flat], {"perm": [1, 0]})])
    work.replace(node.outputs[0], work.emit("Transpose", [result], {"perm": _last_two_swapped(len(b))}))
    return True


def _turned(value: ir.Value, shape: Shape, work: Rewriting) -> ir.Value | None:
    """`value` with its last two axes swapped, where that moves no data."""
    node, order = value.producer(), _last_two_swapped(len(shape))
    if node is not None and node.op_type == "Transpose" and list(node.attributes.get_ints("perm", ())) == order:
        return node.inputs[0]
    if is_one(shape[-1]) or is_one(shape[-2]):
        return work.emit("Transpose", [value], {"perm": order})
    return None


def _last_two_swapped(rank: int) -> list[int]:
    return [*range(rank - 2), rank - 1, rank - 2]


def sum_of_product(node: ir.Node, work: Rewriting) -> bool:
    """The sum of an elementwise product over an axis is a matrix product where one side is the same for all rows."""
    axes, value = axes_of(node), node.inputs[0]
    product_node = value.producer() if value is not None else None
    whole = work.shape(value)
    if axes is None or len(axes) != 1 or whole is None or product_node is None or product_node.op_type != "Mul":
        return False
    one, other = product_node.inputs
    if (
        one is None
        or other is None
        or is_constant(one)
        or is_constant(other)
        or one is other
        or len(list(value.uses() if value else ())) > 1
    ):
        return False
    axis, keep = axes[0] % len(whole) - len(whole), bool(node.attributes.get_int("keepdims", 1))
    for wide, shared in ((one, other), (other, one)):
        made = _dot(wide, shared, axis, work) if axis == -1 else _weighted(wide, shared, axis, work)
        if made is None:
            continue
        result, position = made
        shape = work.ints(position)
        work.replace(node.outputs[0], result if keep else work.emit("Squeeze", [result, shape]))
        return True
    return False


def _dot(wide: ir.Value, shared: ir.Value, axis: int, work: Rewriting) -> tuple[ir.Value, int] | None:
    """`sum_d wide[..., d] shared[d]`, with the axis kept, and that axis."""
    a, b = work.shape(wide), work.shape(shared)
    if a is None or b is None or not a or not b or a[-1] != b[-1] or is_one(a[-1]) or len(b) > len(a) or len(a) < 2:
        return None
    if not all(is_one(size) for size in b[:-1]) or usual(product(a[:-1])) == 1 or not is_fixed(a[-1]):
        return None
    column = work.emit("Reshape", [shared, work.ints(a[-1][0], 1)])
    return work.emit("MatMul", [wide, column]), axis


def _weighted(wide: ir.Value, shared: ir.Value, axis: int, work: Rewriting) -> tuple[ir.Value, int] | None:
    """`sum_t wide[rows, t, 1] shared[1, t, d]` as `[rows, t] [t, d]`, with the axis kept, and that axis."""
    a, b = work.shape(wide), work.shape(shared)
    if axis != -2 or a is None or b is None or len(a) != 3 or len(b) not in {2, 3}:
        return None
    if not (is_one(a[2]) and a[1] == b[-2] and not is_one(a[0]) and (len(b) == 2 or is_one(b[0]))):
        return None
    weights = work.emit("Squeeze", [wide, work.ints(2)])
    values = shared if len(b) == 2 else work.emit("Squeeze", [shared, work.ints(0)])
    return work.emit("Unsqueeze", [work.emit("MatMul", [weights, values]), work.ints(1)]), axis
