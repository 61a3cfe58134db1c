"""Recognising a piece of an ONNX graph by the expression that computes a value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

# A name stands for any value (the same one wherever it occurs), a number for a constant, a tuple for an operator and its inputs
# (`If` takes the condition and what its two branches give), a list for alternatives.
Pattern = str | int | tuple["Pattern", ...] | list["Pattern"]

_SAME_NUMBERS = ("Identity", "Cast", "CastLike")
# An operator with other attributes than these is another operator; `end` is 1 where a Shape is that of the leading dimension.
_USUAL: dict[str, int] = {"axis": 0, "noop_with_empty_axes": 0, "start": 0, "end": 1}
_IGNORED = ("allowzero", "axes", "keepdims", "to", "saturate", "then_branch", "else_branch")


def constant(value: ir.Value | None) -> np.ndarray | None:
    """The constant that `value` holds, seen through casts; None when it is computed from inputs."""
    while value is not None:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return np.asarray(tensor.numpy())
        node = value.producer()
        if node is None or node.op_type not in _SAME_NUMBERS:
            return None
        value = node.inputs[0]
    return None


def unify(value: ir.Value | None, pattern: Pattern, bound: dict[str, ir.Value]) -> bool:
    """Whether `value` is computed as `pattern` says; what the pattern's names stand for is added to `bound`."""
    if isinstance(pattern, list):
        return _first_of(value, pattern, bound)
    if isinstance(pattern, int):
        found = constant(value)
        return found is not None and found.size == 1 and int(found.reshape(())) == pattern
    value = _through_identity(value)
    if value is None:
        return False
    if isinstance(pattern, str):
        known = bound.setdefault(pattern, value)
        return known is value or _equal_constants(known, value)
    node = value.producer()
    name, *inputs = pattern
    if node is None or _name(node) != name or not _usual(node):
        return False
    given = _arguments(node)
    return len(given) == len(inputs) and all(unify(one, expected, bound) for one, expected in zip(given, inputs, strict=True))


def _first_of(value: ir.Value | None, patterns: Sequence[Pattern], bound: dict[str, ir.Value]) -> bool:
    """The first alternative that fits; those that do not fit leave `bound` as it was."""
    for pattern in patterns:
        attempt = dict(bound)
        if unify(value, pattern, attempt):
            bound.update(attempt)
            return True
    return False


def _through_identity(value: ir.Value | None) -> ir.Value | None:
    while value is not None and (node := value.producer()) is not None and node.op_type == "Identity":
        value = node.inputs[0]
    return value


def _equal_constants(one: ir.Value, other: ir.Value) -> bool:
    a, b = constant(one), constant(other)
    return a is not None and b is not None and np.array_equal(a, b)


def _name(node: ir.Node) -> str:
    """`ReduceSum keepdims=0` for a reduction that drops the axis, else the operator."""
    keep = node.attributes.get("keepdims")
    return f"{node.op_type} keepdims=0" if keep is not None and keep.as_int() == 0 else node.op_type


def _usual(node: ir.Node) -> bool:
    return all(name in _IGNORED or attribute.value == _USUAL.get(name) for name, attribute in node.attributes.items())


def _arguments(node: ir.Node) -> list[ir.Value | None]:
    """Inputs as an operator of opset 18 has them: axes among them, branches of an If by what they give."""
    given = list(node.inputs)
    if node.op_type == "If":
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        return [*given, *(branch.outputs[0] for branch in branches)]
    if "axes" in node.attributes:
        axes = np.asarray(node.attributes["axes"].as_ints(), dtype=np.int64)
        given.append(ir.Value(name="axes", const_value=ir.tensor(axes)))
    return given
