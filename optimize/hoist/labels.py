"""Along which axes an operation works on every entry by itself, written as labels like those of an einsum.

An axis of an input and an axis of an output that carry the same label belong together: entry i of the output comes from entry i of the
inputs alone. None marks an axis that the operation mixes. What an operator's axes mean is in the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import onnx_ir as ir

from .facts import is_one
from .rewriting import Rewriting, constant_of

Label = int | str | None


class Labels(msgspec.Struct, frozen=True):
    """A label per axis of every input (empty where an input is missing or has none to follow) and of every output.

    `broadcasts` says that an input may have size 1 where another one has more.
    """

    inputs: tuple[tuple[Label, ...], ...]
    outputs: tuple[tuple[Label, ...], ...]
    broadcasts: bool = False


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
        *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
    )
)
ELEMENTWISE = UNARY | BINARY
_EXACT_OVER_COPIES = frozenset({"ReduceMax", "ReduceMin", "ReduceMean"})


def labels_of(node: ir.Node, work: Rewriting) -> Labels | None:
    """The labels of a node of the default domain; None for one that nothing is known of, or whose axes are not constants."""
    rule = _RULES.get(node.op_type)
    return rule(node, work) if rule is not None else None


def _rank(work: Rewriting, value: ir.Value | None) -> int | None:
    shape = work.shape(value)
    return None if shape is None else len(shape)


def _ranks(work: Rewriting, values: Sequence[ir.Value | None]) -> list[int] | None:
    found = [0 if value is None else _rank(work, value) for value in values]
    return None if any(rank is None for rank in found) else [rank or 0 for rank in found]


def _from_end(rank: int) -> tuple[Label, ...]:
    """Labels by position from the end, so that operands of different rank line up as in broadcasting."""
    return tuple(range(-rank, 0))


def _elementwise(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks, out = _ranks(work, node.inputs), _rank(work, node.outputs[0])
    if ranks is None or out is None:
        return None
    return Labels(tuple(_from_end(rank) for rank in ranks), (_from_end(out),), broadcasts=True)


def _matmul(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks = _ranks(work, node.inputs)
    if ranks is None or min(ranks) < 2:
        return None
    a, b = (_from_end(rank)[:-2] for rank in ranks)
    batch = max(a, b, key=len)
    return Labels(((*a, "m", None), (*b, None, "n")), ((*batch, "m", "n"),), broadcasts=True)


def _gemm(node: ir.Node, work: Rewriting) -> Labels | None:
    a: tuple[Label, ...] = (None, "m") if node.attributes.get_int("transA", 0) else ("m", None)
    b: tuple[Label, ...] = ("n", None) if node.attributes.get_int("transB", 0) else (None, "n")
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    rank = 0 if bias is None else _rank(work, bias)
    if rank is None:
        return None
    c: tuple[Label, ...] = ("m", "n")[2 - rank :]
    # A Gemm repeats its third input to fit the product, never the other way round.
    alone = work.expansion(bias) is not None and work.expansion(node.inputs[0]) is None
    return Labels((a, b, c)[: len(node.inputs)], (("m", "n"),), broadcasts=alone)


def _gather(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks = _ranks(work, node.inputs)
    if ranks is None:
        return None
    axis = node.attributes.get_int("axis", 0) % ranks[0]
    data: list[Label] = [f"d{number}" for number in range(ranks[0])]
    index: tuple[Label, ...] = tuple(f"i{number}" for number in range(ranks[1]))
    out = (*data[:axis], *index, *data[axis + 1 :])
    data[axis] = None
    return Labels((tuple(data), index), (out,))


def _same_axes_but(node: ir.Node, work: Rewriting, mixed: set[int], inputs: int = 1) -> Labels | None:
    """Every output has the axes of the first input; those in `mixed` (counted from the start) are mixed. The first `inputs` share them."""
    rank = _rank(work, node.inputs[0])
    if rank is None:
        return None
    labels: tuple[Label, ...] = tuple(None if axis in {m % rank for m in mixed} else axis for axis in range(rank))
    given = tuple(labels if number < inputs and value is not None else () for number, value in enumerate(node.inputs))
    return Labels(given, tuple(labels for _ in node.outputs))


def _along(default: int) -> Callable[[ir.Node, Rewriting], Labels | None]:
    def rule(node: ir.Node, work: Rewriting) -> Labels | None:
        return _same_axes_but(node, work, {node.attributes.get_int("axis", default)})

    return rule


def _softmax(node: ir.Node, work: Rewriting) -> Labels | None:
    # Before opset 13 it worked on a matrix, so that "axis" meant another thing.
    version = work.model.opset_imports.get("", 0)
    return _same_axes_but(node, work, {node.attributes.get_int("axis", -1)}) if version >= 13 else None


def _concat(node: ir.Node, work: Rewriting) -> Labels | None:
    return _same_axes_but(node, work, {node.attributes.get_int("axis", 0)}, inputs=len(node.inputs))


def _cumsum(node: ir.Node, work: Rewriting) -> Labels | None:
    axis = constant_of(node.inputs[1])
    return None if axis is None else _same_axes_but(node, work, {int(axis.reshape(-1)[0])})


def _slice(node: ir.Node, work: Rewriting) -> Labels | None:
    starts = work.shape(node.inputs[1])
    given = constant_of(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if given is None:
        if starts is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
            return None
        return _same_axes_but(node, work, set(range(starts[0][0])))
    return _same_axes_but(node, work, {int(axis) for axis in given.reshape(-1)})


def _layer_norm(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = _rank(work, node.inputs[0])
    if rank is None or len([output for output in node.outputs if output.uses()]) > 1:
        return None
    labels: tuple[Label, ...] = tuple(range(node.attributes.get_int("axis", -1) % rank)) + (None,) * rank
    return Labels((labels[:rank], *(() for _ in node.inputs[1:])), tuple(labels[:rank] for _ in node.outputs))


def _only(axis: int) -> Callable[[ir.Node, Rewriting], Labels | None]:
    """One axis of the first input stays by itself."""

    def rule(node: ir.Node, work: Rewriting) -> Labels | None:
        rank, out = _rank(work, node.inputs[0]), _rank(work, node.outputs[0])
        if rank is None or out is None:
            return None
        labels, given = (tuple("b" if i == axis else None for i in range(size)) for size in (rank, out))
        return Labels((labels, *(() for _ in node.inputs[1:])), (given, *(() for _ in node.outputs[1:])))

    return rule


def _conv(node: ir.Node, work: Rewriting) -> Labels | None:
    """A convolution over single positions is a linear layer for each of them; any other mixes neighbours."""
    rank = _rank(work, node.inputs[0])
    kernel, strides = node.attributes.get_ints("kernel_shape", None), node.attributes.get_ints("strides", None)
    pads, pad = node.attributes.get_ints("pads", None), node.attributes.get_string("auto_pad", "NOTSET")
    if rank is None:
        return None
    single = kernel is not None and set(kernel) == {1} and set(strides or (1,)) == {1} and set(pads or (0,)) == {0} and pad == "NOTSET"
    labels: tuple[Label, ...] = (0, None, *((axis if single else None) for axis in range(2, rank)))
    return Labels((labels, *(() for _ in node.inputs[1:])), (labels,))


def _batch_norm(node: ir.Node, work: Rewriting) -> Labels | None:
    return None if node.attributes.get_int("training_mode", 0) else _same_axes_but(node, work, {1})


def _trilu(node: ir.Node, work: Rewriting) -> Labels | None:
    return _same_axes_but(node, work, {-1, -2})


def _gather_elements(node: ir.Node, work: Rewriting) -> Labels | None:
    return _same_axes_but(node, work, {node.attributes.get_int("axis", 0)}, inputs=2)


def _scatter_elements(node: ir.Node, work: Rewriting) -> Labels | None:
    return _same_axes_but(node, work, {node.attributes.get_int("axis", 0)}, inputs=3)


def _gather_nd(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks, out = _ranks(work, node.inputs), _rank(work, node.outputs[0])
    if ranks is None or out is None or node.attributes.get_int("batch_dims", 0) != 0:
        return None
    index: tuple[Label, ...] = tuple(range(ranks[1] - 1))
    return Labels(((None,) * ranks[0], (*index, None)), ((*index, *(None,) * (out - len(index))),))


def _reduce(node: ir.Node, work: Rewriting) -> Labels | None:
    rank, axes = _rank(work, node.inputs[0]), axes_of(node)
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


def _arg(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = _rank(work, node.inputs[0])
    if rank is None:
        return None
    axis = node.attributes.get_int("axis", 0) % rank
    labels: tuple[Label, ...] = tuple(None if number == axis else number for number in range(rank))
    out = labels if node.attributes.get_int("keepdims", 1) else (*labels[:axis], *labels[axis + 1 :])
    return Labels((labels,), (out,))


def axes_of(node: ir.Node) -> list[int] | None:
    """The axes that a reduction, a Squeeze or an Unsqueeze names, empty for none; None where they are not constants."""
    attribute = node.attributes.get_ints("axes", None)
    if attribute is not None:
        return list(attribute)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        return []
    array = constant_of(given)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def _transpose(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = _rank(work, node.inputs[0])
    if rank is None:
        return None
    order = node.attributes.get_ints("perm", None) or tuple(reversed(range(rank)))
    return Labels((tuple(range(rank)),), (tuple(order),))


def _squeeze(node: ir.Node, work: Rewriting) -> Labels | None:
    shape, axes = work.shape(node.inputs[0]), axes_of(node)
    if shape is None or not axes:
        return None
    gone = {axis % len(shape) for axis in axes}
    # An axis that is dropped has size 1 and is nobody's copy.
    labels: tuple[Label, ...] = tuple(None if axis in gone else axis for axis in range(len(shape)))
    return Labels((labels, *(() for _ in node.inputs[1:])), (tuple(axis for axis in labels if axis is not None),))


def _unsqueeze(node: ir.Node, work: Rewriting) -> Labels | None:
    out, axes = _rank(work, node.outputs[0]), axes_of(node)
    if out is None or not axes:
        return None
    new = {axis % out for axis in axes}
    left = iter(range(out))
    labels: tuple[Label, ...] = tuple(None if axis in new else next(left) for axis in range(out))
    return Labels((tuple(axis for axis in labels if axis is not None), *(() for _ in node.inputs[1:])), (labels,))


def _recurrent(node: ir.Node, work: Rewriting) -> Labels | None:
    if node.attributes.get_int("layout", 0) != 0:
        return None
    del work
    by_input: dict[int, tuple[Label, ...]] = {0: (None, "b", None), 4: ("b",), 5: (None, "b", None), 6: (None, "b", None)}
    inputs = tuple(by_input.get(number, ()) if value is not None else () for number, value in enumerate(node.inputs))
    outputs: tuple[tuple[Label, ...], ...] = ((None, None, "b", None), (None, "b", None), (None, "b", None))
    return Labels(inputs, outputs[: len(node.outputs)])


def _one_hot(node: ir.Node, work: Rewriting) -> Labels | None:
    out = _rank(work, node.outputs[0])
    if out is None:
        return None
    axis = node.attributes.get_int("axis", -1) % out
    labels: tuple[Label, ...] = tuple(range(out - 1))
    return Labels((labels, (), ()), ((*labels[:axis], None, *labels[axis:]),))


def _pad(node: ir.Node, work: Rewriting) -> Labels | None:
    rank, pads = _rank(work, node.inputs[0]), constant_of(node.inputs[1])
    if rank is None or pads is None or pads.size != 2 * rank:
        return None
    return _same_axes_but(node, work, {axis for axis in range(rank) if pads[axis] or pads[axis + rank]})


_RULES: dict[str, Callable[[ir.Node, Rewriting], Labels | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _softmax),
    **dict.fromkeys(("Split",), _along(0)),
    **dict.fromkeys(("TopK", "LpNormalization"), _along(-1)),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _layer_norm),
    "Conv": _conv,
    **dict.fromkeys(("ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"), _only(0)),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"), _reduce),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), _reduce),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "Concat": _concat,
    "CumSum": _cumsum,
    "Slice": _slice,
    "BatchNormalization": _batch_norm,
    "Trilu": _trilu,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "OneHot": _one_hot,
    "Pad": _pad,
}


def is_size_one(work: Rewriting, value: ir.Value | None, axis: int) -> bool:
    """Whether `value` has size 1 along `axis` (from the start), in every world."""
    shape = work.shape(value)
    return shape is not None and is_one(shape[axis])
