"""Which operations keep units apart: what they do to one entry of the units' axis depends on no other entry of it."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from ..cost.shapes import Tensors
from .linears import Place, array_of, array_shape


def _operators(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ELEMENTWISE = _operators(
    """Relu Gelu Sigmoid Tanh LeakyRelu Elu Selu Celu Softplus Softsign HardSigmoid HardSwish Mish Swish ThresholdedRelu Erf Exp Log Sqrt
    Reciprocal Neg Abs Identity Cast Dropout Sign Floor Ceil Round Sin Cos Add Sub Mul Div Pow Max Min Sum Mean PRelu Where Equal Greater
    GreaterOrEqual Less LessOrEqual And Or Not IsNaN IsInf"""
)
_REDUCTIONS = _operators("ReduceSum ReduceMean ReduceMax ReduceMin ReduceL2 ReduceSumSquare")


class Span(msgspec.Struct, frozen=True):
    """Where a layer's units stand in an axis of `wide` entries: from `offset` on, all of it unless others were concatenated.

    `axis` is counted from the end: -1, or another one between two transposes.
    """

    offset: int
    wide: int
    axis: int = -1


class UnitWise(msgspec.Struct, frozen=True):
    """A node that keeps units apart: the inputs that carry them, its constants with an entry per unit, and shapes that say how many.

    The constants' units stand on `axis` of each.
    """

    carriers: tuple[ir.Value, ...]
    vectors: tuple[Place, ...] = ()
    axis: int = -1
    shapes: tuple[Place, ...] = ()


def unit_wise(node: ir.Node, span: Span, shapes: Tensors) -> UnitWise | None:
    """How `node` treats units that stand in its result as `span` says; None when it mixes them, or when too little is known of it."""
    if node.domain != "" or sum(bool(value.uses()) or value.is_graph_output() for value in node.outputs) > 1 or not node.inputs:
        return None
    data = node.inputs[0]
    if data is None:
        return None
    if node.op_type in _ELEMENTWISE:
        return _elementwise(node, span, shapes)
    rank = _rank(data, shapes)
    return None if rank is None else _of_rank(node, data, span, rank)


def _of_rank(node: ir.Node, data: ir.Value, span: Span, rank: int) -> UnitWise | None:
    """What is not elementwise, for data of a known rank."""
    match node.op_type:
        case "CastLike" | "Clip":
            scalars = all(array_shape(v) == () for v in node.inputs[1:] if v is not None and v.const_value is not None)
            found = UnitWise((data,)) if scalars else None
        case "BatchNormalization":
            places = tuple(Place(node, position) for position in range(1, 5))
            constant = all(value is not None and value.const_value is not None for value in node.inputs[1:5])
            per_unit = rank + span.axis == 1
            found = UnitWise((data,), vectors=places if per_unit else ()) if constant else None
        case _ if span.axis != -1:
            found = None
        case "MatMul":
            right = node.inputs[1]
            found = None if right is None or right.const_value is not None or rank < 2 else UnitWise((right,))
        case "Concat":
            carriers = tuple(value for value in node.inputs if value is not None)
            found = UnitWise(carriers) if _axis(node, "axis", 0, rank) != rank - 1 else None
        case "Reshape" | "Expand":
            found = _reshaped(node, data, span)
        case _:
            found = UnitWise((data,)) if _spares_last_axis(node, rank) else None
    return found


def axis_size(value: ir.Value, shapes: Tensors, axis: int = -1) -> int | None:
    """Entries of an axis counted from the end, 1 where there is no such axis, None where it is unknown."""
    shape = shapes.shape(value)
    return None if shape is None else (shape[axis] if len(shape) >= -axis else 1)


def transposed(node: ir.Node, span: Span, *, backwards: bool) -> Span | None:
    """Where units stand behind a Transpose, or before it; None for another node."""
    permutation = node.attributes.get_ints("perm", None)
    if node.op_type != "Transpose" or node.domain != "" or permutation is None:
        return None
    order, place = list(permutation), span.axis % len(permutation)
    return Span(span.offset, span.wide, (order[place] if backwards else order.index(place)) - len(order))


def concatenated(node: ir.Node, position: int, span: Span, shapes: Tensors) -> Span | None:
    """Where units of input `position` stand after a Concat along the last axis; None when it is along another, or widths are unknown."""
    first = node.inputs[0]
    rank = None if first is None else _rank(first, shapes)
    if node.op_type != "Concat" or node.domain != "" or rank is None or span.axis != -1 or _axis(node, "axis", 0, rank) != rank - 1:
        return None
    widths = [None if value is None else axis_size(value, shapes) for value in node.inputs]
    known = [width for width in widths if width is not None]
    return Span(span.offset + sum(known[:position]), sum(known)) if len(known) == len(widths) else None


def _elementwise(node: ir.Node, span: Span, shapes: Tensors) -> UnitWise | None:
    carriers, vectors = [], []
    for position, value in enumerate(node.inputs):
        if value is None or (node.op_type == "Dropout" and position > 0):
            continue
        width = axis_size(value, shapes, span.axis)
        if width == span.wide and value.const_value is not None:
            vectors.append(Place(node, position))
        elif width == span.wide:
            carriers.append(value)
        elif width != 1:
            return None
    return UnitWise(tuple(carriers), vectors=tuple(vectors), axis=span.axis) if carriers else None


def _reshaped(node: ir.Node, data: ir.Value, span: Span) -> UnitWise | None:
    """Rows are laid out anew and each stays whole, where the new shape is a constant that ends in the number of units."""
    shape = node.inputs[1]
    if shape is None or shape.const_value is None or not shape.const_value.size:
        return None
    last = int(array_of(shape)[-1])
    if node.op_type == "Expand" and last == 1:
        return UnitWise((data,))
    return UnitWise((data,), shapes=(Place(node, 1),)) if last == span.wide else None


def _spares_last_axis(node: ir.Node, rank: int) -> bool:
    """Whether an operation along some axes leaves the last one alone."""
    axes: list[int] | None = None
    match node.op_type:
        case "Softmax" | "LogSoftmax":
            axes = [_axis(node, "axis", -1, rank)]
        case "Gather":
            axes = [_axis(node, "axis", 0, rank)]
        case "Unsqueeze":
            axes = _axes(node, 1)
            rank += len(axes or ())
        case "Slice":
            axes = _axes(node, 3)
        case "Squeeze" | "CumSum":
            axes = _axes(node, 1)
        case reduction if reduction in _REDUCTIONS:
            axes = _axes(node, 1) or None
    return axes is not None and rank > 1 and rank - 1 not in {axis % rank for axis in axes}


def _axes(node: ir.Node, position: int) -> list[int] | None:
    """Axes from a constant input, or from the attribute of older operator sets; None when they are not written down."""
    value = node.inputs[position] if len(node.inputs) > position else None
    if value is not None:
        return None if value.const_value is None else [int(axis) for axis in array_of(value).reshape(-1)]
    written = node.attributes.get_ints("axes", None)
    return None if written is None else list(written)


def _axis(node: ir.Node, name: str, default: int, rank: int) -> int:
    return int(node.attributes.get_int(name, default)) % max(rank, 1)


def _rank(value: ir.Value, shapes: Tensors) -> int | None:
    shape = shapes.shape(value)
    return None if shape is None else len(shape)
