"""Labels of operations that compute (ONNX operator specification)."""

from __future__ import annotations

import onnx_ir as ir

from .facts import is_one
from .label import Label, LabelRule, Labels, axes_of, from_end, rank_of, ranks_of, same_axes_but
from .rewriting import Rewriting

UNARY = frozenset(
    (
        *(
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BitwiseNot",
            "Cast",
            "Ceil",
            "Celu",
            "Cos",
            "Cosh",
            "Elu",
            "Erf",
            "Exp",
        ),
        *(
            "Floor",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "Identity",
            "IsInf",
            "IsNaN",
            "LeakyRelu",
            "Log",
            "Mish",
            "Neg",
            "Not",
            "Reciprocal",
        ),
        *("Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "Swish"),
        *("ThresholdedRelu", "Clip"),
    )
)
BINARY = frozenset(
    (
        *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less"),
        *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"),
    )
)
ELEMENTWISE = UNARY | BINARY
_EXACT_OVER_COPIES = frozenset({"ReduceMax", "ReduceMin", "ReduceMean"})


def _elementwise(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks, out = ranks_of(work, node.inputs), rank_of(work, node.outputs[0])
    if ranks is None or out is None:
        return None
    return Labels(tuple(from_end(rank) for rank in ranks), (from_end(out),), broadcasts=True)


def _matmul(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks = ranks_of(work, node.inputs)
    if ranks is not None and ranks[0] > 1 and ranks[1] == 1:
        rows = tuple(range(ranks[0] - 1))
        return Labels(((*rows, None), (None,)), (rows,))
    if ranks is None or min(ranks) < 2:
        return None
    a, b = (from_end(rank)[:-2] for rank in ranks)
    batch = max(a, b, key=len)
    return Labels(((*a, "m", None), (*b, None, "n")), ((*batch, "m", "n"),), broadcasts=True)


def _prelu(node: ir.Node, work: Rewriting) -> Labels | None:
    """The slope may have fewer entries than what it bends, never more."""
    shape, slope = work.shape(node.inputs[0]), work.shape(node.inputs[1])
    if shape is None or slope is None:
        return None
    labels = from_end(len(shape))
    own = tuple(None if is_one(size) else label for size, label in zip(slope, from_end(len(slope)), strict=True))
    return Labels((labels, own), (labels,))


def _einsum(node: ir.Node, work: Rewriting) -> Labels | None:
    """Letters that are kept are axes of their own; those that are summed over are not."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    ranks = ranks_of(work, node.inputs)
    terms = inputs.split(",")
    if not arrow or "." in equation or ranks is None or [len(term) for term in terms] != ranks:
        return None
    if any(len(set(term)) != len(term) for term in (*terms, output)):
        return None
    return Labels(tuple(tuple(letter if letter in output else None for letter in term) for term in terms), (tuple(output),))


def _gemm(node: ir.Node, work: Rewriting) -> Labels | None:
    a: tuple[Label, ...] = (None, "m") if node.attributes.get_int("transA", 0) else ("m", None)
    b: tuple[Label, ...] = ("n", None) if node.attributes.get_int("transB", 0) else (None, "n")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = 0 if bias is None else rank_of(work, bias)
    if rank is None:
        return None
    sizes = work.shape(bias) if bias is not None else ()
    c: tuple[Label, ...] = tuple(None if is_one(size) else label for size, label in zip(sizes or (), ("m", "n")[2 - rank :], strict=True))
    # A Gemm repeats its third input to fit the product, never the other way round.
    alone = work.expansion(bias) is not None and work.expansion(node.inputs[0]) is None
    return Labels((a, b, c)[: len(node.inputs)], (("m", "n"),), broadcasts=alone)


def _softmax(node: ir.Node, work: Rewriting) -> Labels | None:
    # Before opset 13 it worked on a matrix, so that "axis" meant another thing.
    version = work.model.opset_imports.get("", 0)
    return same_axes_but(node, work, {node.attributes.get_int("axis", -1)}) if version >= 13 else None


def _layer_norm(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = rank_of(work, node.inputs[0])
    if rank is None or len([output for output in node.outputs if output.uses()]) > 1:
        return None
    labels: tuple[Label, ...] = tuple(range(node.attributes.get_int("axis", -1) % rank)) + (None,) * rank
    return Labels((labels[:rank], *(() for _ in node.inputs[1:])), tuple(labels[:rank] for _ in node.outputs))


def _only(axis: int) -> LabelRule:
    """One axis of the first input stays by itself."""

    def rule(node: ir.Node, work: Rewriting) -> Labels | None:
        rank, out = rank_of(work, node.inputs[0]), rank_of(work, node.outputs[0])
        if rank is None or out is None:
            return None
        labels, given = (tuple("b" if i == axis else None for i in range(size)) for size in (rank, out))
        return Labels((labels, *(() for _ in node.inputs[1:])), (given, *(() for _ in node.outputs[1:])))

    return rule


def _conv(node: ir.Node, work: Rewriting) -> Labels | None:
    """A convolution over single positions is a linear layer for each of them; any other mixes neighbours."""
    rank = rank_of(work, node.inputs[0])
    kernel, strides = node.attributes.get_ints("kernel_shape", None), node.attributes.get_ints("strides", None)
    pads, pad = node.attributes.get_ints("pads", None), node.attributes.get_string("auto_pad", "NOTSET")
    if rank is None:
        return None
    single = kernel is not None and set(kernel) == {1} and set(strides or (1,)) == {1} and set(pads or (0,)) == {0} and pad == "NOTSET"
    labels: tuple[Label, ...] = (0, None, *((axis if single else None) for axis in range(2, rank)))
    return Labels((labels, *(() for _ in node.inputs[1:])), (labels,))


def _batch_norm(node: ir.Node, work: Rewriting) -> Labels | None:
    return None if node.attributes.get_int("training_mode", 0) else same_axes_but(node, work, {1})


def _reduce(node: ir.Node, work: Rewriting) -> Labels | None:
    rank, axes = rank_of(work, node.inputs[0]), axes_of(node)
    if rank is None or axes is None:
        return None
    if not axes:
        axes = [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(rank))
    gone = {axis % rank for axis in axes}
    own = "copies of one number have that number as their " + node.op_type.removeprefix("Reduce")
    mixed = {axis: f"{own} {axis}" for axis in gone} if node.op_type in _EXACT_OVER_COPIES else {}
    labels: tuple[Label, ...] = tuple(mixed.get(axis) if axis in gone else axis for axis in range(rank))
    keep = node.attributes.get_int("keepdims", 1)
    out = tuple(None if axis in gone else axis for axis in range(rank) if keep or axis not in gone)
    return Labels((labels, *(() for _ in node.inputs[1:])), (out,))


def _recurrent(node: ir.Node, work: Rewriting) -> Labels | None:
    if node.attributes.get_int("layout", 0) != 0:
        return None
    del work
    by_input: dict[int, tuple[Label, ...]] = {0: (None, "b", None), 4: ("b",), 5: (None, "b", None), 6: (None, "b", None)}
    inputs = tuple(by_input.get(number, ()) if value is not None else () for number, value in enumerate(node.inputs))
    outputs: tuple[tuple[Label, ...], ...] = ((None, None, "b", None), (None, "b", None), (None, "b", None))
    return Labels(inputs, outputs[: len(node.outputs)])


ARITHMETIC: dict[str, LabelRule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layer_norm),
    "Conv": _conv,
    **dict.fromkeys(("ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _only(0)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"), _reduce),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), _reduce),
    "MatMul": _matmul,
    "PRelu": _prelu,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "BatchNormalization": _batch_norm,
}
