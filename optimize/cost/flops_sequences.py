"""FLOPs of recurrent layers and of attention; a multiply and an add count as two."""

from __future__ import annotations

import math

from .operands import Operands, UnknownCost

SOFTMAX = 5  # per element: maximum, difference, exponential, sum, quotient

# Per step and hidden unit, besides the two matrix products: (sums of the two products, one per gate) + activations + what combines them.
_LSTM_STEP, _LSTM_GATES, _LSTM_PEEPHOLES = 4 + 5 + 4, 4, 6
_GRU_STEP, _GRU_GATES = 3 + 3 + 5, 3
_RNN_STEP, _RNN_GATES = 1 + 1, 1


def lstm(x: Operands) -> int:
    """c' = f⊙c + i⊙g, h = o⊙tanh(c'); peepholes multiply and add the cell into three gates."""
    return _recurrent(x, _LSTM_GATES, _LSTM_STEP + (_LSTM_PEEPHOLES if x.given(7) else 0))


def gru(x: Operands) -> int:
    """h' = (1 - z)⊙n + z⊙h, the reset gate multiplied into h or into its product; the latter needs a bias of its own."""
    separate = 1 if x.given(3) and x.integer("linear_before_reset", 0) else 0
    return _recurrent(x, _GRU_GATES, _GRU_STEP + separate)


def rnn(x: Operands) -> int:
    """h' = f(W x + R h + b)."""
    return _recurrent(x, _RNN_GATES, _RNN_STEP)


def _recurrent(x: Operands, gates: int, step: int) -> int:
    """`x [steps, batch, inputs]` (or batch first), `w [directions, gates * hidden, inputs]`, `r [directions, gates * hidden, hidden]`."""
    steps_and_batch = math.prod(x.shape(0)[:2])
    directions, _, inputs = x.shape(1)
    hidden = x.shape(2)[-1]
    bias = gates if x.given(3) else 0
    return steps_and_batch * directions * hidden * (2 * gates * (inputs + hidden) + step + bias)


def _attend(pairs: int, sizes: tuple[int, int], masks: int) -> int:
    """Scores, scale, masks added, softmax and weighted values for every pair of a query and a key, over all heads and rows.

    `sizes` are those of a key and of a value. Causal masks save nothing.
    """
    key, value = sizes
    return pairs * (2 * key + 1 + masks + SOFTMAX + 2 * value)


def attention(x: Operands) -> int:
    """ONNX's Attention: `q [batch, heads, queries, key]`, or heads side by side in `[batch, queries, heads * key]`."""
    q, k, v = x.shape(0), x.shape(1), x.shape(2)
    if len(q) == 3:
        heads, key_heads = x.integer("q_num_heads"), x.integer("kv_num_heads")
        batch, queries, keys, sizes = q[0], q[1], k[1], (k[2] // key_heads, v[2] // key_heads)
    else:
        batch, heads, queries, keys, sizes = q[0], q[1], q[2], k[2], (k[3], v[3])
    keys += x.shape(4)[2] if x.given(4) else 0
    softcap = 3 if x.node.attributes.get_float("softcap", 0.0) else 0
    return _attend(batch * heads * queries * keys, sizes, (1 if x.given(3) else 0) + softcap)


def packed_attention(x: Operands) -> int:
    """com.microsoft's Attention and QAttention: one product gives queries, keys and values, then they attend."""
    batch, queries, width = x.shape(0)
    heads = x.integer("num_heads")
    projected = x.integers("qkv_hidden_sizes") or (x.shape(1)[1] // 3,) * 3
    quantized = x.node.op_type == "QAttention"
    mask, past, bias = (5, 8, None) if quantized else (3, 4, 5)
    keys = queries + (x.shape(past)[3] if x.given(past) else 0)
    masks = x.given(mask) + (bias is not None and x.given(bias))
    product = batch * queries * sum(projected) * (2 * width + (1 if x.given(2) else 0) + (1 if quantized else 0))
    return product + _attend(batch * heads * queries * keys, (projected[1] // heads, projected[2] // heads), masks)


def multi_head_attention(x: Operands) -> int:
    """com.microsoft's MultiHeadAttention: queries, keys and values come projected; a bias is added to each."""
    heads, q = x.integer("num_heads"), x.shape(0)
    if len(q) == 5:  # [batch, queries, heads, 3, size]
        batch, queries, keys, key, value = q[0], q[1], q[1], q[4], q[4]
    elif not x.given(1):
        raise UnknownCost("packed queries, keys and values of a rank other than 5")
    else:
        batch, queries, k = q[0], q[1], x.shape(1)
        if len(k) == 5:  # [batch, keys, heads, 2, size]
            keys, key, value = k[1], k[4], k[4]
        elif len(k) == 4:  # [batch, heads, keys, size]
            keys, key, value = k[2], k[3], x.shape(2)[3]
        else:
            keys, key, value = k[1], k[2] // heads, x.shape(2)[2] // heads
    biases = batch * heads * (queries * key + keys * (key + value)) if x.given(3) else 0
    keys += x.shape(6)[2] if x.given(6) else 0
    return biases + _attend(batch * heads * queries * keys, (key, value), x.given(4) + x.given(5))
