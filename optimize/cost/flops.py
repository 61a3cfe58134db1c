"""FLOPs of one node, by operator.

A multiply and an add are two. An elementwise function (Exp, Tanh, Sigmoid, a comparison) is one per element, whatever it costs the
machine, and a fused operator is what it is written out. Integer arithmetic counts like floating point. Moving numbers about is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import flops_products as products
from . import flops_sequences as sequences
from .operands import Operands, UnknownCost


def _operators(names: str) -> tuple[str, ...]:
    """Operators written one after another; `com.microsoft:` stands before those that ONNX does not have."""
    return tuple(names.split())


_MOVES = frozenset(
    _operators(
        """BitCast Cast CastLike CenterCropPad ChannelShuffle Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape
        DepthToSpace Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity OneHot Optional OptionalGetElement
        OptionalHasElement Pad Reshape ReverseSequence SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert
        SequenceLength Shape Size Slice SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile Transpose Trilu Unsqueeze
        com.microsoft:ExpandDims com.microsoft:GatherND com.microsoft:Pad com.microsoft:QLinearConcat com.microsoft:Trilu"""
    )
)

_PER_OUTPUT: dict[str, int] = {
    **dict.fromkeys(
        _operators(
            """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Ceil Celu Cos Cosh Div Elu
            Equal Erf Exp Floor Greater GreaterOrEqual HardSigmoid Hardmax IsInf IsNaN LeakyRelu Less LessOrEqual Log Mod Mul Neg Not Or
            PRelu Pow Range Reciprocal Relu Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Tan Tanh ThresholdedRelu Where
            Xor"""
        ),
        1,
    ),
    **dict.fromkeys(_operators("BatchNormalization Clip DequantizeLinear HardSwish QuantizeLinear Shrink Swish"), 2),
    **dict.fromkeys(_operators("com.microsoft:DequantizeLinear com.microsoft:GatherBlockQuantized com.microsoft:QuantizeLinear"), 2),
    **dict.fromkeys(_operators("LpNormalization Mish RotaryEmbedding com.microsoft:QuickGelu com.microsoft:RotaryEmbedding"), 3),
    **dict.fromkeys(_operators("LogSoftmax Softmax com.microsoft:Gelu"), sequences.SOFTMAX),
    **dict.fromkeys(_operators("com.microsoft:QLinearAdd com.microsoft:QLinearMul"), 5),
    **dict.fromkeys(_operators("com.microsoft:BiasGelu com.microsoft:BiasSoftmax"), 6),
}

_PER_INPUT: dict[str, int] = {
    **dict.fromkeys(_operators("ArgMax ArgMin CumProd CumSum GlobalAveragePool GlobalMaxPool NonZero"), 1),
    **dict.fromkeys(_operators("ReduceMax ReduceMin ReduceProd ReduceSum"), 1),
    **dict.fromkeys(_operators("ReduceL1 ReduceSumSquare"), 2),
    "DynamicQuantizeLinear": 4,
}
# A reduction that ends with one more function of each result.
_PER_INPUT_AND_OUTPUT: dict[str, tuple[int, int]] = {
    "ReduceL2": (2, 1),
    "ReduceLogSum": (1, 1),
    "ReduceLogSumExp": (4, 2),
    "ReduceMean": (1, 1),
}


def flops_of(x: Operands) -> int:
    """FLOPs of one run of a node without a body; raises UnknownCost for an operator nobody has described, or without its shapes."""
    op = x.op
    if op in _MOVES:
        return 0
    if op in _PER_OUTPUT:
        return _PER_OUTPUT[op] * x.out_size()
    if op in _PER_INPUT:
        return _PER_INPUT[op] * x.size(0)
    if op in _PER_INPUT_AND_OUTPUT:
        each, end = _PER_INPUT_AND_OUTPUT[op]
        return each * x.size(0) + end * x.out_size()
    if op not in _FORMULAS:
        raise UnknownCost(f"nobody has described the cost of {op}")
    return _FORMULAS[op](x)


def _fold(x: Operands) -> int:
    """Max, Min, Sum, Mean of several tensors."""
    return x.out_size() * (len(x.node.inputs) - 1 + (x.op == "Mean"))


def _layer_norm(x: Operands) -> int:
    """Mean, difference, square, sum, division by the deviation, scale; a shift where it is given."""
    return x.size(0) * (7 if x.given(2) else 6)


def _rms_norm(x: Operands) -> int:
    """Square, sum, division, scale."""
    return 4 * x.size(0)


def _skip_norm(x: Operands) -> int:
    """A residual is added, then a bias where it is given, then the sum is normalized."""
    simplified = x.node.op_type.startswith("SkipSimplified")
    norm = 4 if simplified else 7 if x.given(3) else 6
    return x.size(0) * (norm + 1 + x.given(3 if simplified else 4))


def _instance_norm(x: Operands) -> int:
    return 7 * x.size(0)


def _gelu(x: Operands) -> int:
    return x.out_size() * (8 if x.text("approximate", "none") == "tanh" else 5)


def _fast_gelu(x: Operands) -> int:
    return x.out_size() * (9 if x.given(1) else 8)


def _pool(x: Operands) -> int:
    return x.out_size() * math.prod(x.integers("kernel_shape") or ())


def _top_k(x: Operands) -> int:
    """A heap of k elements: log2 k comparisons for each element."""
    k = x.out()[x.integer("axis", -1)] if x.out() else 1
    return x.size(0) * max(1, math.ceil(math.log2(max(k, 1))))


def _scatter(x: Operands) -> int:
    """Updates that are combined with what they meet cost one each, others are moves."""
    return x.size(2) if x.text("reduction", "none") != "none" else 0


_FORMULAS: dict[str, Callable[[Operands], int]] = {
    **dict.fromkeys(("Max", "Min", "Sum", "Mean"), _fold),
    **dict.fromkeys(("MatMul", "MatMulInteger"), products.matmul),
    **dict.fromkeys(("Scatter", "ScatterElements", "ScatterND"), _scatter),
    **dict.fromkeys(("Conv", "ConvInteger"), products.convolution),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization"), _layer_norm),
    **dict.fromkeys(("SimplifiedLayerNormalization", "RMSNormalization"), _rms_norm),
    **dict.fromkeys(("com.microsoft:SkipLayerNormalization", "com.microsoft:SkipSimplifiedLayerNormalization"), _skip_norm),
    **dict.fromkeys(("AveragePool", "MaxPool", "LpPool"), _pool),
    **dict.fromkeys(("com.microsoft:FusedMatMul", "com.microsoft:TransposeMatMul"), products.fused_matmul),
    **dict.fromkeys(("com.microsoft:Attention", "com.microsoft:QAttention"), sequences.packed_attention),
    "Attention": sequences.attention,
    "ConvTranspose": products.transposed_convolution,
    "Einsum": products.einsum,
    "GRU": sequences.gru,
    "Gelu": _gelu,
    "Gemm": products.gemm,
    "InstanceNormalization": _instance_norm,
    "LSTM": sequences.lstm,
    "QLinearConv": products.qlinear_convolution,
    "QLinearMatMul": products.qlinear_matmul,
    "RNN": sequences.rnn,
    "TopK": _top_k,
    "com.microsoft:DynamicQuantizeMatMul": products.dynamic_quantize_matmul,
    "com.microsoft:FastGelu": _fast_gelu,
    "com.microsoft:FusedConv": products.fused_convolution,
    "com.microsoft:FusedGemm": products.fused_gemm,
    "com.microsoft:MatMulIntegerToFloat": products.matmul_integer_to_float,
    "com.microsoft:MatMulNBits": products.matmul_nbits,
    "com.microsoft:MultiHeadAttention": sequences.multi_head_attention,
    "com.microsoft:QGemm": products.qgemm,
}
