"""Operators that work on each element for itself."""

from __future__ import annotations

import onnx_ir as ir

UNARY = frozenset(
    {"Relu", "Gelu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "Mish"}
    | {"Swish", "ThresholdedRelu", "Erf", "Exp", "Log", "Sqrt", "Reciprocal", "Neg", "Abs", "Identity", "Cast", "Sign", "Floor", "Ceil"}
    | {"Round", "Not", "IsNaN", "IsInf"}
)
BROADCASTING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Mod", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual"}
    | {"Greater", "GreaterOrEqual", "Where", "PRelu"}
)


def is_elementwise(node: ir.Node) -> bool:
    """Whether every element of the output is made of the elements at its place, small inputs being broadcast."""
    return node.domain in {"", "ai.onnx"} and node.op_type in UNARY | BROADCASTING and len(node.outputs) == 1
