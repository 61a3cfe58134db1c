"""Bytes that one node reads and writes: what has to move even where there is nothing to compute."""

from __future__ import annotations

from .operands import Operands

# Runtimes hand the same memory on under another shape.
_VIEWS = frozenset({"Constant", "Dropout", "Flatten", "Identity", "Reshape", "Shape", "Size", "Squeeze", "Unsqueeze"})
# These read as much of their first input as they write, not all of it: a lookup touches only the rows that are looked up.
_PARTIAL = frozenset({"Compress", "Gather", "GatherElements", "GatherND", "Slice", "com.microsoft:GatherBlockQuantized"})


def bytes_of(x: Operands) -> int:
    """Every distinct input once and every output once; raises UnknownCost without their shapes."""
    if x.op in _VIEWS:
        return 0
    written = sum(x.nbytes(value) for value in x.node.outputs if value.name)
    read = {value for value in x.node.inputs if value is not None}
    if x.op in _PARTIAL:
        return 2 * written + sum(x.nbytes(value) for value in read - {x.node.inputs[0]})
    return written + sum(x.nbytes(value) for value in read)
