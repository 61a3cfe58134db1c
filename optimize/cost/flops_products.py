"""FLOPs of products: matrices, convolutions, einsum, and their 8-bit versions; a multiply and an add count as two."""

from __future__ import annotations

import math

import numpy as np

from .operands import Operands, UnknownCost
from .shapes import Shape

# Finding a tensor's range takes a minimum and a maximum, storing it as integers a scale and a shift.
_QUANTIZE = 4
_RESCALE_TO_INTEGERS = 2


def product(a: Shape, b: Shape) -> int:
    """`[..., m, k] @ [..., k, n]`, leading dimensions broadcast, vectors as numpy takes them."""
    if not a or not b:
        raise UnknownCost("a scalar has no matrix product")
    left, right = (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b
    return 2 * math.prod(np.broadcast_shapes(left[:-2], right[:-2])) * left[-2] * left[-1] * right[-1]


def matmul(x: Operands) -> int:
    """MatMul and MatMulInteger."""
    return product(x.shape(0), x.shape(1))


def fused_matmul(x: Operands) -> int:
    """FusedMatMul: either side may be transposed first."""
    return product(_transposed(x.shape(0), x.integer("transA", 0)), _transposed(x.shape(1), x.integer("transB", 0)))


def gemm(x: Operands) -> int:
    """The product, and an add per element where there is a bias; `alpha` and `beta` are taken as folded into the weights."""
    return _gemm(x, b=1) + (x.out_size() if x.given(2) else 0)


def fused_gemm(x: Operands) -> int:
    """Gemm with an activation."""
    return gemm(x) + x.out_size()


def qlinear_matmul(x: Operands) -> int:
    """QLinearMatMul: both sides and the result are integers."""
    return product(x.shape(0), x.shape(3)) + _RESCALE_TO_INTEGERS * x.out_size()


def qgemm(x: Operands) -> int:
    """QGemm: the result is rescaled, to integers again where an output scale is given."""
    return _gemm(x, b=3) + x.out_size() * ((1 if x.given(6) else 0) + (_RESCALE_TO_INTEGERS if x.given(7) else 1))


def dynamic_quantize_matmul(x: Operands) -> int:
    """DynamicQuantizeMatMul: the left side becomes integers, the result is rescaled to floats."""
    return _QUANTIZE * x.size(0) + product(x.shape(0), x.shape(1)) + x.out_size() * (2 if x.given(4) else 1)


def matmul_integer_to_float(x: Operands) -> int:
    """MatMulIntegerToFloat: rescaled to floats, with an optional bias."""
    return product(x.shape(0), x.shape(1)) + x.out_size() * (2 if x.given(6) else 1)


def matmul_nbits(x: Operands) -> int:
    """MatMulNBits: the packed weight `[n, k]` becomes floats by a shift and a scale before it is multiplied."""
    weight = x.integer("K") * x.integer("N")
    return 2 * math.prod(x.shape(0)[:-1]) * weight + 2 * weight


def convolution(x: Operands) -> int:
    """Conv and ConvInteger: each output element is a product over a kernel window of its group's channels."""
    return 2 * x.out_size() * math.prod(x.shape(1)[1:]) + (x.out_size() if x.op == "Conv" and x.given(2) else 0)


def fused_convolution(x: Operands) -> int:
    """FusedConv: a convolution, an optional bias and an activation."""
    return 2 * x.out_size() * math.prod(x.shape(1)[1:]) + x.out_size() * (2 if x.given(2) else 1)


def qlinear_convolution(x: Operands) -> int:
    """QLinearConv: integers in and out, with an optional bias."""
    return 2 * x.out_size() * math.prod(x.shape(3)[1:]) + x.out_size() * (_RESCALE_TO_INTEGERS + (1 if x.given(8) else 0))


def transposed_convolution(x: Operands) -> int:
    """ConvTranspose: each input element is spread over a kernel window of its group's output channels."""
    return 2 * x.size(0) * math.prod(x.shape(1)[1:]) + (x.out_size() if x.given(2) else 0)


def einsum(x: Operands) -> int:
    """Operands contracted pair by pair from the left; a pair that sums over nothing costs a multiply per element."""
    terms, result = _labels(x)
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        for label, size in zip(term, x.shape(index), strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    if len(terms) == 1:
        return x.size(0) if set(terms[0]) - set(result) else 0
    total, done = 0, set(terms[0])
    for index, term in enumerate(terms[1:], start=1):
        together = done | set(term)
        needed = set(result).union(*terms[index + 1 :])
        total += (2 if together - needed else 1) * math.prod(sizes[label] for label in together)
        done = together & needed
    return total


def _labels(x: Operands) -> tuple[list[list[str]], list[str]]:
    """Labels of every operand and of the result; an ellipsis becomes labels `.0`, `.1`, ... counted from the right."""
    equation = x.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    written = left.split(",")
    if not equation or len(written) != len(x.node.inputs):
        raise UnknownCost(f"the equation '{equation}' does not fit its operands")
    terms = [_spelled(term, len(x.shape(index))) for index, term in enumerate(written)]
    dots = max((sum(label.startswith(".") for label in term) for term in terms), default=0)
    if arrow:
        return terms, _spelled(right, len(right.replace("...", "")) + (dots if "..." in right else 0))
    once = sorted(label for label in set(left) - {",", "."} if left.count(label) == 1)
    return terms, [*(f".{i}" for i in reversed(range(dots))), *once]


def _spelled(term: str, rank: int) -> list[str]:
    before, dots, after = term.partition("...")
    free = rank - len(before) - len(after)
    if free < 0 or (free and not dots):
        raise UnknownCost(f"the term '{term}' does not fit a tensor of rank {rank}")
    return [*before, *(f".{i}" for i in reversed(range(free))), *after]


def _gemm(x: Operands, *, b: int) -> int:
    return product(_transposed(x.shape(0), x.integer("transA", 0)), _transposed(x.shape(b), x.integer("transB", 0)))


def _transposed(shape: Shape, wanted: int) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2]) if wanted and len(shape) > 1 else shape
