"""Sizes of a graph's values that hold for every number of rows: numbers, and names for what varies."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard

import onnx_ir as ir
from onnx_ir.passes import common

from ..rewrites.graph_sizes import size_of
from .edit import const, producer
from .operators import is_elementwise

# None is a size that nobody knows; it equals no other.
Dims = tuple[int | str | None, ...]


def refresh(model: ir.Model) -> None:
    """Infer the shapes of everything that nodes compute anew: what a file says of them may be wrong, or older than a rewriting."""
    forget(model)
    # What it cannot infer stays unknown; it only logs a failure.
    common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    named = {dim for value in model.graph.inputs for dim in dims_of(value) or () if isinstance(dim, str)}
    # Names that inference made up for sizes that turn out to be others.
    known: dict[int | str | None, int | str] = {}
    for node in model.graph:
        for value in node.outputs:
            _refine(node, value, named, known)


def _refine(node: ir.Node, value: ir.Value, named: set[str], known: dict[int | str | None, int | str]) -> None:
    inferred = dims_of(value)
    dims = None if inferred is None else tuple(known.get(size, size) for size in inferred)
    if not _certain(dims, named):
        found = _computed(node)
        if dims is None:
            dims = found
        elif found is not None and len(found) == len(dims):
            known.update(
                (old, new)
                for old, new in zip(dims, found, strict=True)
                if isinstance(old, str) and old not in named and _is_known(new, named)
            )
            dims = tuple(known.get(size, size) if size is not None else new for size, new in zip(dims, found, strict=True))
    if dims is not None and dims != inferred:
        value.shape = ir.Shape(dims)


def _is_known(size: int | str | None, named: set[str]) -> TypeGuard[int | str]:
    return isinstance(size, int) or size in named


def forget(model: ir.Model) -> None:
    """Drop the shapes of everything that nodes compute."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None


@contextmanager
def inferred_shapes(model: ir.Model) -> Iterator[None]:
    """Within this block no shape is believed that the file states of what nodes compute; outputs state theirs again afterwards."""
    declared = [value.shape for value in model.graph.outputs]
    forget(model)
    try:
        yield
    finally:
        forget(model)
        for value, shape in zip(model.graph.outputs, declared, strict=True):
            value.shape = shape


def dims_of(value: ir.Value | None) -> Dims | None:
    """The sizes of `value`, None where not even their number is known."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def same(one: Dims | None, other: Dims | None) -> bool:
    """Whether both are known and equal for every number of rows."""
    return one is not None and one == other and None not in one


def broadcast(*shapes: Dims | None) -> Dims | None:
    """The shape of an elementwise operation; a size that cannot be told is None, and so is the whole when a rank is unknown."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) != len(shapes):
        return None
    rank = max((len(shape) for shape in known), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in known]
    return tuple(_together([shape[axis] for shape in padded]) for axis in range(rank))


def reshape_target(dims: Dims | None) -> list[int] | None:
    """The operand of a Reshape to `dims`; None where more than one size varies, or one is 0."""
    if dims is None or sum(not isinstance(size, int) for size in dims) > 1 or 0 in dims:
        return None
    return [size if isinstance(size, int) else -1 for size in dims]


def asked_dims(value: ir.Value | None) -> Dims | None:
    """The sizes that a shape operand (of an Expand, of a ConstantOfShape) holds; None where their number is unknown."""
    known = const(value)
    if known is not None:
        return tuple(int(size) for size in known.reshape(-1))
    parts = producer(value, "Concat")
    if parts is not None:
        found = [_one(part) for part in parts.inputs]
        return tuple(found) if None not in found else None
    shape = producer(value, "Shape")
    if shape is not None:
        dims = dims_of(shape.inputs[0])
        return None if dims is None else dims[shape.attributes.get_int("start", 0) : shape.attributes.get_int("end", None)]
    return None if value is None or dims_of(value) != (1,) else (_one(value),)


def _one(value: ir.Value | None) -> int | str | None:
    size = size_of(value)
    if size is None:
        return None
    if not size.symbols:
        return size.factor
    (symbol, *more) = size.symbols
    return symbol.name if size.factor == 1 and not more and symbol.axis is None else None


def _together(sizes: Sequence[int | str | None]) -> int | str | None:
    wide = {size for size in sizes if size != 1}
    if len(wide) <= 1:
        return wide.pop() if wide else 1
    # A name beside a number above 1 has to be that number; two names cannot be told apart from one of them being 1.
    numbers = [size for size in wide if isinstance(size, int)]
    return numbers[0] if numbers else None


def _certain(dims: Dims | None, named: set[str]) -> bool:
    """Whether all sizes are numbers or those of inputs: names that inference made up equal nothing."""
    return dims is not None and all(_is_known(dim, named) for dim in dims)


def _computed(node: ir.Node) -> Dims | None:
    """Shapes that ONNX's inference leaves open."""
    if is_elementwise(node):
        return broadcast(*(dims_of(value) for value in node.inputs if value is not None))
    match node.op_type:
        case "ConstantOfShape":
            return asked_dims(node.inputs[0])
        case "Expand":
            return broadcast(dims_of(node.inputs[0]), asked_dims(node.inputs[1]))
        case "Tile":
            source, repeats = dims_of(node.inputs[0]), asked_dims(node.inputs[1])
            return None if source is None or repeats is None else tuple(_times(*pair) for pair in zip(source, repeats, strict=True))
        case "Reshape":
            return _reshaped(dims_of(node.inputs[0]), asked_dims(node.inputs[1]))
        case _:
            return None


def _times(size: int | str | None, repeat: int | str | None) -> int | str | None:
    if size == 1 or repeat == 1:
        return repeat if size == 1 else size
    return size * repeat if isinstance(size, int) and isinstance(repeat, int) else None


def _reshaped(source: Dims | None, asked: Dims | None) -> Dims | None:
    """-1 stands for the one size that varies, where the numbers on both sides have the same product."""
    if source is None or asked is None or 0 in asked:
        return None
    names = [size for size in source if not isinstance(size, int)]
    numbers = math.prod(size for size in source if isinstance(size, int))
    if len(names) != 1 or asked.count(-1) != 1 or any(not isinstance(size, int) for size in asked):
        return None
    rest = math.prod(size for size in asked if isinstance(size, int) and size != -1)
    return tuple(names[0] if size == -1 else size for size in asked) if rest == numbers and rest > 0 else None
