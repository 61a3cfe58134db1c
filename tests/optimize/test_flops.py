from __future__ import annotations

import pytest

from .onnx_text import cost

# Each case: inputs, node, FLOPs by hand.
PRODUCTS = [
    ("float[2,3] a, float[3,4] b", "y = MatMul(a, b)", 2 * 2 * 3 * 4),
    ("float[5,2,3] a, float[3,4] b", "y = MatMul(a, b)", 5 * 48),
    ("float[5,1,2,3] a, float[6,3,4] b", "y = MatMul(a, b)", 5 * 6 * 48),
    ("float[3] a, float[3,4] b", "y = MatMul(a, b)", 24),
    ("float[2,3] a, float[4,3] b, float[4] c", "y = Gemm<transB=1>(a, b, c)", 48 + 8),
    ("float[3,2] a, float[3,4] b", "y = Gemm<transA=1>(a, b)", 48),
    ("float[3,2] a, float[4,3] b", "y = com.microsoft.FusedMatMul<transA=1, transB=1>(a, b)", 48),
    ("float[1,2,5,5] a, float[3,2,3,3] b", "y = Conv(a, b)", 2 * 27 * 18),
    ("float[1,2,5,5] a, float[3,2,3,3] b, float[3] c", "y = Conv(a, b, c)", 972 + 27),
    ("float[1,4,5,5] a, float[4,1,3,3] b", "y = Conv<group=4>(a, b)", 2 * 36 * 9),
    ("float[1,2,3,3] a, float[2,3,2,2] b", "y = ConvTranspose(a, b)", 2 * 18 * 12),
    ("float[2,3,4] a, float[2,4,5] b", 'y = Einsum<equation="bij,bjk->bik">(a, b)', 2 * 2 * 3 * 4 * 5),
    ("float[2,3] a, float[2,4] b", 'y = Einsum<equation="bi,bj->bij">(a, b)', 2 * 3 * 4),
    ("float[2,3,4] a, float[2,3,4] b", 'y = Einsum<equation="...d, ...d -> ...">(a, b)', 2 * 24),
    ("float[2,3] a, float[3,4] b", 'y = Einsum<equation="ij,jk">(a, b)', 48),
    ("float[3] a, float[3,4] b, float[4] c", 'y = Einsum<equation="a,ab,b->">(a, b, c)', 2 * 12 + 2 * 4),
    ("float[3,4] a", 'y = Einsum<equation="ij->i">(a)', 12),
    ("float[3,4] a", 'y = Einsum<equation="ij->ji">(a)', 0),
]

QUANTIZED = [
    ("uint8[2,3] a, int8[3,4] b", "y = MatMulInteger(a, b)", 48),
    ("uint8[1,1,4,4] a, uint8[1,1,2,2] b", "y = ConvInteger(a, b)", 2 * 9 * 4),
    ("float[2,3] a", "y, s, z = DynamicQuantizeLinear(a)", 4 * 6),
    ("uint8[2,3] a, uint8[3,4] b", "y = QLinearMatMul(a, one, zero, b, one, zero, one, zero)", 48 + 2 * 8),
    ("uint8[2,3] a, uint8[3,4] b", "y = com.microsoft.QGemm(a, one, zero, b, one, zero, , one, zero)", 48 + 2 * 8),
    ("uint8[2,3] a, uint8[3,4] b, int32[4] c", "y = com.microsoft.QGemm(a, one, zero, b, one, zero, c)", 48 + 8 + 8),
    ("float[2,3] a, int8[3,4] b", "y = com.microsoft.DynamicQuantizeMatMul(a, b, one, zero8)", 4 * 6 + 48 + 8),
    ("float[2,3] a, int8[3,4] b, float[4] c", "y = com.microsoft.DynamicQuantizeMatMul(a, b, one, zero8, c)", 4 * 6 + 48 + 16),
    ("uint8[2,3] a, int8[3,4] b", "y = com.microsoft.MatMulIntegerToFloat(a, b, one, one)", 48 + 8),
    ("uint8[6] a", "y = DequantizeLinear(a, one, zero)", 12),
    ("float[6] a", "y = QuantizeLinear(a, one, zero)", 12),
]

# LSTM, hidden size 4: 10 steps and rows; per unit 4 gates of 2 * (3 + 4), and 13 more: 4 sums, 5 activations, 4 that combine them.
SEQUENCES = [
    ("float[5,2,3] x, float[1,16,3] w, float[1,16,4] r", "y = LSTM<hidden_size=4>(x, w, r)", 40 * (4 * 14 + 13)),
    ("float[5,2,3] x, float[1,16,3] w, float[1,16,4] r, float[1,32] b", "y = LSTM<hidden_size=4>(x, w, r, b)", 40 * (4 * 14 + 13 + 4)),
    ("float[5,2,3] x, float[1,12,3] w, float[1,12,4] r", "y = GRU<hidden_size=4>(x, w, r)", 40 * (3 * 14 + 11)),
    (
        "float[5,2,3] x, float[2,12,3] w, float[2,12,4] r, float[2,24] b",
        'y = GRU<hidden_size=4, direction="bidirectional", linear_before_reset=1>(x, w, r, b)',
        80 * (3 * 14 + 11 + 3 + 1),
    ),
    ("float[5,2,3] x, float[1,4,3] w, float[1,4,4] r", "y = RNN<hidden_size=4>(x, w, r)", 40 * (14 + 2)),
]

# 2 rows, 3 heads, 5 queries, 7 keys of size 8, values of size 4: 210 pairs of 16 + 1 (scale) + 5 (softmax) + 8.
ATTENTION = [
    ("float[2,3,5,8] q, float[2,3,7,8] k, float[2,3,7,4] v", "y = Attention(q, k, v)", 210 * 30),
    ("float[2,3,5,8] q, float[2,3,7,8] k, float[2,3,7,4] v, float[5,7] m", "y = Attention(q, k, v, m)", 210 * 31),
    ("float[2,3,5,8] q, float[2,1,7,8] k, float[2,1,7,4] v", "y = Attention(q, k, v)", 210 * 30),
    ("float[2,5,24] q, float[2,7,24] k, float[2,7,12] v", "y = Attention<q_num_heads=3, kv_num_heads=3>(q, k, v)", 210 * 30),
    ("float[2,5,24] q, float[2,7,24] k, float[2,7,12] v", "y = com.microsoft.MultiHeadAttention<num_heads=3>(q, k, v)", 210 * 30),
    # Projected to 24 with a bias, then 2 rows, 2 heads, 5 queries and keys of size 4.
    ("float[2,5,8] x, float[8,24] w, float[24] b", "y = com.microsoft.Attention<num_heads=2>(x, w, b)", 240 * 17 + 100 * (8 + 1 + 5 + 8)),
]

ELEMENTS = [
    ("float[2,3] a, float[3] b", "y = Add(a, b)", 6),
    ("float[2,3] a, float[3] b, float[1] c", "y = Max(a, b, c)", 12),
    ("float[2,3] a, float[3] b", "y = Mean(a, b)", 12),
    ("float[2,3] a", "y = Sigmoid(a)", 6),
    ("float[2,3] a", "y = Gelu(a)", 30),
    ("float[2,3] a", 'y = Gelu<approximate="tanh">(a)', 48),
    ("float[2,3] a", "y = com.microsoft.Gelu(a)", 30),
    ("float[2,3] a", "y = com.microsoft.FastGelu(a)", 48),
    ("float[2,7] a", "y = Softmax(a)", 70),
    ("float[2,7] a, float[7] s", "y = LayerNormalization(a, s)", 14 * 6),
    ("float[2,7] a, float[7] s, float[7] b", "y = LayerNormalization(a, s, b)", 14 * 7),
    ("float[2,7] a, float[7] s", "y = RMSNormalization(a, s)", 14 * 4),
    ("float[2,3,4] a, float[2,3,4] b, float[4] s", "y = com.microsoft.SkipLayerNormalization(a, b, s)", 24 * 7),
    ("float[2,3] a, float[3] s, float[3] b, float[3] m, float[3] v", "y = BatchNormalization(a, s, b, m, v)", 12),
    ("float[1,2,4,4] a", "y = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)", 8 * 4),
    ("float[4,5] a", "y = ReduceSum<keepdims=0>(a, last)", 20),
    ("float[4,5] a", "y = ReduceMean<keepdims=0>(a, last)", 20 + 4),
    ("float[4,5] a", "y = ReduceL2<keepdims=0>(a, last)", 40 + 4),
    ("float[4,5] a", "y = ArgMax(a)", 20),
    ("float[4,8] a", "y, i = TopK(a, four)", 32 * 2),
    ("float[4,5] a, int64[2] i", "y = Gather(a, i)", 0),
    ("float[4,5] a", "y = Transpose(a)", 0),
]


@pytest.mark.parametrize(("inputs", "node", "flops"), [*PRODUCTS, *QUANTIZED, *SEQUENCES, *ATTENTION, *ELEMENTS])
def test_flops_of_a_node_are_those_computed_by_hand(inputs: str, node: str, flops: int) -> None:
    constants = "<float one = {1}, uint8 zero = {0}, int8 zero8 = {0}, int64[1] last = {-1}, int64[1] four = {4}>"
    found = cost(f"({inputs}) => (y) {constants} {{ {node} }}").nodes[-1]
    assert (found.flops, found.unknown) == (flops, "")


@pytest.mark.parametrize(
    ("inputs", "node", "moved"),
    [
        ("float[2,3] a, float[3,4] b", "y = MatMul(a, b)", 4 * (6 + 12 + 8)),
        ("float[2,3] a", "y = Mul(a, a)", 4 * (6 + 6)),
        ("uint8[2,3] a, int8[3,4] b", "y = MatMulInteger(a, b)", 6 + 12 + 4 * 8),
        # A lookup touches the rows it looks up, not the table: 6 ids of 8 bytes, 6 rows of 32 bytes read and written.
        ("float[100,8] a, int64[6] i", "y = Gather(a, i)", 48 + 2 * 192),
        ("float[100,8] a", "y = Slice(a, zero, four)", 2 * 128 + 16),
        ("float[4,5] a", "y = Unsqueeze(a, zero)", 0),
    ],
)
def test_bytes_of_a_node_are_what_it_reads_and_writes(inputs: str, node: str, moved: int) -> None:
    found = cost(f"({inputs}) => (y) <int64[1] zero = {{0}}, int64[1] four = {{4}}> {{ {node} }}").nodes[-1]
    assert found.bytes == moved


def test_an_operator_nobody_has_described_is_unknown_not_free() -> None:
    found = cost("(float[rows,3] a) => (y) { b = Relu(a)  y = other.Mystery(b) }")
    assert found.flops.total == 30
    assert found.flops.uncounted == 1
    assert [(node.op, node.flops, node.unknown) for node in found.unknown] == [
        ("other:Mystery", None, "nobody has described the cost of other:Mystery")
    ]


def test_a_node_behind_an_unknown_operator_is_unknown_when_the_model_cannot_be_run() -> None:
    found = cost("(float[rows,3] a) => (y) { b = other.Mystery(a)  y = Relu(b) }")
    assert [node.unknown for node in found.unknown][1] == "the shape of 'y' is unknown"
    assert "other:Mystery" in found.notes[0]


def test_shapes_that_numbers_decide_come_from_a_run() -> None:
    # Every positive entry of 10 x 3 ones is kept, and NonZero gives its two coordinates.
    found = cost("(float[rows,3] a) => (y) { n = IsNaN(a)  p = Not(n)  i = NonZero(p)  c = Cast<to=1>(i)  y = Relu(c) }")
    assert found.nodes[-1].shape == (2, 30)
    assert found.nodes[-1].flops == 60
