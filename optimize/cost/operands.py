"""A node together with the shapes of what it takes and gives, as cost formulas see it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import onnx_ir as ir

from .shapes import Shape, Tensors


class UnknownCost(Exception):
    """A formula needs a shape or a number that nobody knows; caught where a cost is recorded as unknown, with this reason."""


class Operands(msgspec.Struct, frozen=True):
    """One node; asking for a shape that is unknown raises UnknownCost."""

    node: ir.Node
    tensors: Tensors

    @property
    def op(self) -> str:
        """`MatMul`, or `com.microsoft:Attention` for an operator that is not ONNX's own."""
        return op_name(self.node)

    def given(self, index: int) -> bool:
        """Whether the node has an input at this position."""
        return index < len(self.node.inputs) and self.node.inputs[index] is not None

    def shape(self, index: int) -> Shape:
        """Shape of an input."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        if value is None:
            raise UnknownCost(f"input {index} is missing")
        return self._known(value)

    def out(self, index: int = 0) -> Shape:
        """Shape of an output."""
        return self._known(self.node.outputs[index])

    def size(self, index: int) -> int:
        """Number of elements of an input."""
        return math.prod(self.shape(index))

    def out_size(self, index: int = 0) -> int:
        """Number of elements of an output."""
        return math.prod(self.out(index))

    def nbytes(self, value: ir.Value) -> int:
        """Bytes of an input or output."""
        found = self.tensors.nbytes(value)
        if found is None:
            raise UnknownCost(f"the size of '{value.name}' is unknown")
        return found

    def integer(self, name: str, default: int | None = None) -> int:
        """An attribute; one without a default must be there."""
        found = self.node.attributes.get_int(name, default)
        if found is None:
            raise UnknownCost(f"attribute '{name}' is missing")
        return found

    def integers(self, name: str) -> Sequence[int] | None:
        """A list attribute, None where it is missing."""
        found = self.node.attributes.get_ints(name, None)
        return None if found is None else tuple(found)

    def text(self, name: str, default: str) -> str:
        """A text attribute."""
        return self.node.attributes.get_string(name, default)

    def _known(self, value: ir.Value) -> Shape:
        shape = self.tensors.shape(value)
        if shape is None:
            raise UnknownCost(f"the shape of '{value.name}' is unknown")
        return shape


def op_name(node: ir.Node) -> str:
    """`MatMul`, or `com.microsoft:Attention` for an operator that is not ONNX's own."""
    return node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}:{node.op_type}"
