"""Sizes of tensors as products of dimensions, read off the nodes that compute them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .graph_pattern import constant


class Symbol(NamedTuple):
    """A dimension that varies: by its name (axis None), or as the axis of a value where it has none."""

    name: str
    axis: int | None = None


class Size(NamedTuple):
    """A number times dimensions that vary."""

    factor: int
    symbols: tuple[Symbol, ...] = ()


def product(sizes: Sequence[Size]) -> Size:
    """All of them multiplied."""
    factor = 1
    symbols: list[Symbol] = []
    for size in sizes:
        factor *= size.factor
        symbols.extend(size.symbols)
    return Size(factor, tuple(sorted(symbols, key=str)))


def dims_of(value: ir.Value) -> tuple[Size, ...] | None:
    """The size of every axis of `value`; None where its rank is unknown."""
    if value.shape is not None:
        return tuple(_dim(value, axis) for axis in range(len(value.shape)))
    node = value.producer()
    if node is None or node.op_type not in {"Cast", "Identity", "Reshape"} or node.inputs[0] is None:
        return None
    source = dims_of(node.inputs[0])
    if node.op_type != "Reshape":
        return source
    target = constant(node.inputs[1])
    return (product(source),) if source is not None and target is not None and target.tolist() == [-1] else None


def _dim(value: ir.Value, axis: int) -> Size:
    dim = value.shape[axis] if value.shape is not None else None
    if isinstance(dim, int):
        return Size(dim)
    named = dim is not None and dim.value is not None
    return Size(1, (Symbol(str(dim.value)) if named and dim is not None else Symbol(value.name or "", axis),))


def size_of(value: ir.Value | None) -> Size | None:
    """The one number `value` holds, where it is made of constants and sizes of tensors alone."""
    known = constant(value)
    if known is not None:
        return Size(int(known.reshape(()))) if known.size == 1 and known.dtype.kind in "iu" else None
    node = value.producer() if value is not None else None
    if value is None or node is None or not node.inputs or node.inputs[0] is None:
        return None
    return _computed(node.op_type, node.inputs, node.inputs[0], value)


def _computed(op_type: str, inputs: Sequence[ir.Value | None], source: ir.Value, value: ir.Value) -> Size | None:
    match op_type:
        case "Cast" | "Identity" | "Squeeze" | "Unsqueeze" | "Reshape":
            found = size_of(source)
        case "Mul":
            found = _all_of([size_of(one) for one in inputs])
        case "Gather":
            found = _one_of(_shape(source), constant(inputs[1]))
        case "ReduceProd":
            found = _all_of(_shape(source))
        case "Size":
            found = _all_of(dims_of(source))
        case _:
            shape = _shape(value)
            found = shape[0] if shape is not None and len(shape) == 1 else None
    return found


def _all_of(sizes: Sequence[Size | None] | None) -> Size | None:
    known = [size for size in sizes or () if size is not None]
    return product(known) if sizes is not None and len(known) == len(sizes) else None


def _one_of(sizes: Sequence[Size] | None, index: np.ndarray | None) -> Size | None:
    if sizes is None or index is None or index.size != 1:
        return None
    position = int(index.reshape(()))
    return sizes[position] if -len(sizes) <= position < len(sizes) else None


def _shape(value: ir.Value | None) -> tuple[Size, ...] | None:
    """The sizes that a Shape node gives."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Shape" or node.inputs[0] is None:
        return None
    dims = dims_of(node.inputs[0])
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    return dims[start.as_int() if start else 0 : end.as_int() if end else None] if dims is not None else None
