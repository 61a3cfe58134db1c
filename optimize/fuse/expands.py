"""Repeated numbers that broadcasting would repeat anyway: a mask made as wide as what it multiplies."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .dims import Dims, broadcast, dims_of, same
from .edit import constant, graph_of, insert, replace
from .operators import BROADCASTING, UNARY


def drop_expands(model: ir.Model) -> int:
    """Let elementwise operators broadcast instead of reading what was repeated for them; returns how many operands became smaller.

    What is repeated is carried down through operators of one input, and through reshapes that only add or drop axes of size 1.
    """
    changed = 0
    for node in list(model.graph):
        if node.domain not in {"", "ai.onnx"} or node.graph is None or len(node.outputs) != 1:
            continue
        if node.op_type in BROADCASTING:
            changed += _broadcast(node)
        elif node.op_type in UNARY and node.op_type != "Identity":
            changed += _after(node)
        elif node.op_type in {"Reshape", "Squeeze", "Unsqueeze"}:
            changed += _after_reshape(node, model)
    return changed


def _source(value: ir.Value | None) -> ir.Value | None:
    """What `value` repeats along axes of size 1, its rank being the same; None when it repeats nothing."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type not in {"Expand", "Tile"} or node.domain not in {"", "ai.onnx"}:
        return None
    source, wide = dims_of(node.inputs[0]), dims_of(value)
    if source is None or wide is None or len(source) != len(wide) or source == wide or None in wide:
        return None
    return node.inputs[0] if all(one in (1, other) for one, other in zip(source, wide, strict=True)) else None


def _broadcast(node: ir.Node) -> int:
    """Operands that others make as wide as they were."""
    changed = 0
    for position, value in enumerate(node.inputs):
        source = _source(value)
        if source is None:
            continue
        shapes = [dims_of(source if at == position else one) for at, one in enumerate(node.inputs) if one is not None]
        before = broadcast(*(dims_of(one) for one in node.inputs if one is not None))
        if same(broadcast(*shapes), before):
            node.replace_input_with(position, source)
            changed += 1
    return changed


def _after(node: ir.Node) -> int:
    """`f(Expand(x))` as `Expand(f(x))`."""
    value = node.inputs[0]
    source, repeat = _source(value), value.producer() if value is not None else None
    if source is None or repeat is None:
        return 0
    # Not through `insert`: these attributes may be of any kind.
    inner = ir.node(node.op_type, [source, *node.inputs[1:]], attributes=dict(node.attributes), name=node.name)
    graph_of(node).insert_before(node, inner)
    inner.outputs[0].shape, inner.outputs[0].type = source.shape, node.outputs[0].type
    replace(node, repeat.op_type, [inner.outputs[0], repeat.inputs[1]])
    return 1


def _after_reshape(node: ir.Node, model: ir.Model) -> int:
    """The same through a Reshape that only adds or drops axes of size 1."""
    value = node.inputs[0]
    source, before, after = _source(value), dims_of(value), dims_of(node.outputs[0])
    small = dims_of(source)
    if source is None or small is None or before is None or after is None or None in after or not same(_wide(before), _wide(after)):
        return 0
    left = iter([one for one, wide in zip(small, before, strict=True) if wide != 1])
    target = tuple(1 if size == 1 else next(left) for size in after)
    repeats = [size if isinstance(size, int) and one == 1 else 1 for one, size in zip(target, after, strict=True)]
    if not all(isinstance(size, int) for one, size in zip(target, after, strict=True) if one == 1 and size != 1):
        return 0
    if sum(not isinstance(size, int) for size in target) > 1 or 0 in target:
        return 0
    shape = constant(model, np.asarray([size if isinstance(size, int) else -1 for size in target], np.int64), "narrow")
    narrow = insert(node, "Reshape", [source, shape])
    narrow.shape, narrow.type = ir.Shape(target), source.type
    replace(node, "Expand", [narrow, constant(model, np.asarray(repeats, np.int64), "repeats")])
    return 1


def _wide(dims: Dims) -> Dims:
    return tuple(size for size in dims if size != 1)
