"""What a linear layer reads, written as a sum: x W = sum of v W_v over values v that may be smaller than x."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .facts import Shape, is_one, product, usual
from .rewriting import Rewriting

_DEEPEST = 8


class Term(msgspec.Struct, frozen=True):
    """`factors` (one value, or two that are multiplied elementwise) times `weight`, float `[k, n]`."""

    factors: tuple[ir.Value, ...]
    weight: np.ndarray


class Layer(msgspec.Struct, frozen=True):
    """A product with a constant matrix: what it reads, the matrix `[k, n]`, what is added (None: nothing), and the value it gives.

    The bias may come from the Gemm itself or from the Add of a constant vector after a MatMul.
    """

    node: ir.Node
    read: ir.Value
    weight: np.ndarray
    bias: ir.Value | None
    result: ir.Value


def layer_of(node: ir.Node) -> Layer | None:
    """`node` as a linear layer; None where its weight is not constant or it scales what it multiplies."""
    read, weight = node.inputs[0], const(node.inputs[1])
    if read is None or weight is None or weight.ndim != 2 or weight.dtype.kind != "f" or const(read) is not None:
        return None
    result = node.outputs[0]
    if node.op_type == "Gemm":
        attributes = node.attributes
        if attributes.get_int("transA", 0) or attributes.get_float("alpha", 1.0) != 1.0:
            return None
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and attributes.get_float("beta", 1.0) != 1.0:
            return None
        return Layer(node, read, weight.T if attributes.get_int("transB", 0) else weight, bias, result)
    after = _only_reader(result)
    if after is not None and after.op_type == "Add":
        other = after.inputs[1] if after.inputs[0] is result else after.inputs[0]
        array = const(other)
        if array is not None and array.ndim == 1 and array.size == weight.shape[1]:
            return Layer(node, read, weight, other, after.outputs[0])
    return Layer(node, read, weight, None, result)


def terms_of(layer: Layer, work: Rewriting) -> list[Term] | None:
    """The sum that the layer computes, terms of the same factors merged; None where a shape is unknown."""
    merged: dict[tuple[ir.Value, ...], np.ndarray] = {}
    for term in _terms(layer.read, layer.weight, work, 0):
        if any(work.shape(factor) is None for factor in term.factors):
            return None
        merged[term.factors] = merged[term.factors] + term.weight if term.factors in merged else term.weight
    return [Term(factors, weight) for factors, weight in merged.items()]


def _terms(value: ir.Value, weight: np.ndarray, work: Rewriting, depth: int) -> Iterator[Term]:
    node = value.producer()
    found = work.expansion(value)
    if found is not None and -1 not in found.sizes and not found.blocks:
        yield from _terms(found.base, weight, work, depth + 1)
        return
    if node is None or node.domain != "" or depth > _DEEPEST:
        yield Term((value,), weight)
        return
    if node.op_type == "Concat" and _is_last(node.attributes.get_int("axis", 0), value, work):
        yield from _of_concat(node, value, weight, work, depth)
    elif node.op_type in {"Add", "Sub"} and _smaller(node, value, work):
        for operand, sign in zip(node.inputs, (1, 1 if node.op_type == "Add" else -1), strict=True):
            if operand is not None:
                yield from _terms(operand, weight * weight.dtype.type(sign), work, depth + 1)
    elif node.op_type == "Mul" and _smaller(node, value, work):
        factors = tuple(operand for operand in node.inputs if operand is not None)
        yield Term(tuple(sorted(factors, key=lambda factor: -_rows(work.shape(factor)))), weight)
    else:
        yield Term((value,), weight)


def _of_concat(node: ir.Node, value: ir.Value, weight: np.ndarray, work: Rewriting, depth: int) -> Iterator[Term]:
    widths = [_width(work.shape(part)) for part in node.inputs]
    if any(width is None for width in widths):
        yield Term((value,), weight)
        return
    found: list[Term] = []
    start = 0
    for part, width in zip(node.inputs, widths, strict=True):
        if part is not None and width:
            found.extend(_terms(part, weight[start : start + width], work, depth + 1))
        start += width or 0
    if [term.factors for term in found] == [(part,) for part in node.inputs]:
        yield Term((value,), weight)  # all of its parts are laid out as it is
    else:
        yield from found


def _smaller(node: ir.Node, value: ir.Value, work: Rewriting) -> bool:
    """Whether both operands have far fewer rows than the result, and all of its last axis: then they are multiplied apart."""
    whole = work.shape(value)
    shapes = [work.shape(operand) for operand in node.inputs]
    if whole is None or any(shape is None or not shape or shape[-1] != whole[-1] for shape in shapes):
        return False
    if len({_width(shape) for shape in shapes}) > 1 or any(const(operand) is not None for operand in node.inputs):
        return False
    return 2 * sum(_rows(shape) for shape in shapes) <= _rows(whole)


def _rows(shape: Shape | None) -> int:
    return usual(product(shape[:-1])) if shape else 0


def _width(shape: Shape | None) -> int | None:
    return shape[-1][0] if shape and len(set(shape[-1])) == 1 else None


def _is_last(axis: int, value: ir.Value, work: Rewriting) -> bool:
    shape = work.shape(value)
    return shape is not None and axis in {-1, len(shape) - 1}


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def leading(shape: Shape, rank: int) -> Shape:
    """All axes but the last, with axes of size 1 in front up to `rank` axes in all."""
    one = (1,) * len(shape[-1])
    return (one,) * (rank - len(shape)) + shape[:-1]


def all_ones(shape: Shape) -> bool:
    """Whether every axis has size 1."""
    return all(is_one(size) for size in shape)
