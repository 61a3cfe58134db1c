"""Along which axes an operation works on every entry by itself, written as labels like those of an einsum.

An axis of an input and an axis of an output that carry the same label belong together: entry i of the output comes from entry i of the
inputs alone. None marks an axis that the operation mixes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import onnx_ir as ir

from ..fuse.edit import const
from .facts import is_one
from .rewriting import Rewriting

Label = int | str | None


class Labels(msgspec.Struct, frozen=True):
    """A label per axis of every input (empty where an input is missing or has none to follow) and of every output.

    `broadcasts` says that an input may have size 1 where another one has more.
    """

    inputs: tuple[tuple[Label, ...], ...]
    outputs: tuple[tuple[Label, ...], ...]
    broadcasts: bool = False


LabelRule = Callable[[ir.Node, Rewriting], Labels | None]


def rank_of(work: Rewriting, value: ir.Value | None) -> int | None:
    """Number of axes, None where the shape is unknown."""
    shape = work.shape(value)
    return None if shape is None else len(shape)


def ranks_of(work: Rewriting, values: Sequence[ir.Value | None]) -> list[int] | None:
    """Numbers of axes, 0 for a missing input; None where one is unknown."""
    found = [0 if value is None else rank_of(work, value) for value in values]
    return None if any(rank is None for rank in found) else [rank or 0 for rank in found]


def from_end(rank: int) -> tuple[Label, ...]:
    """Labels by position from the end, so that operands of different rank line up as in broadcasting."""
    return tuple(range(-rank, 0))


def same_axes_but(node: ir.Node, work: Rewriting, mixed: set[int], inputs: int = 1) -> Labels | None:
    """Every output has the axes of the first input; those in `mixed` (counted from the start) are mixed. The first `inputs` share them."""
    rank = rank_of(work, node.inputs[0])
    if rank is None:
        return None
    others = [work.shape(value) for value in node.inputs[1:inputs] if value is not None]
    if any(shape is None or len(shape) != rank for shape in others):
        return None
    first = work.shape(node.inputs[0]) or ()
    gone = {axis % rank for axis in mixed} | {axis for axis in range(rank) if any((shape or ())[axis] != first[axis] for shape in others)}
    labels: tuple[Label, ...] = tuple(None if axis in gone else axis for axis in range(rank))
    given = tuple(labels if number < inputs and value is not None else () for number, value in enumerate(node.inputs))
    return Labels(given, tuple(labels for _ in node.outputs))


def axes_of(node: ir.Node) -> list[int] | None:
    """The axes that a reduction, a Squeeze or an Unsqueeze names, empty for none; None where they are not constants."""
    attribute = node.attributes.get_ints("axes", None)
    if attribute is not None:
        return list(attribute)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    if given is None:
        return []
    array = const(given)
    return None if array is None else [int(axis) for axis in array.reshape(-1)]


def is_size_one(work: Rewriting, value: ir.Value | None, axis: int) -> bool:
    """Whether `value` has size 1 along `axis` (from the start), in every world."""
    shape = work.shape(value)
    return shape is not None and is_one(shape[axis])
