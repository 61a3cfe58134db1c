"""Shapes of a graph's values at several sizes of a request, so that one can tell what varies with the candidates and what never does."""

from __future__ import annotations

import math

import onnx_ir as ir

from ...core.signature import Signature
from ..cost.shapes import Tensors
from ..cost.sizes import Sizes, sizes_of

# A dimension is known by its size in each world: with the usual candidates, with another number of them, and with other lengths too.
Size = tuple[int, ...]
Shape = tuple[Size, ...]

WORLDS = 3
# Rules weigh work at a request between the small and the large ones that rankers get.
_CANDIDATES, _OTHER_CANDIDATES, _OTHER_LENGTH = 64, 31, 37


class Facts:
    """The shapes of every value of `model` (without functions) in each world.

    Where inference leaves holes the model is run once per world on generated inputs.
    """

    def __init__(self, model: ir.Model, signature: Signature) -> None:
        usual = sizes_of(signature, candidates=_CANDIDATES)
        lengths = {name: _OTHER_LENGTH + 3 * number for number, name in enumerate(usual.dims)}
        worlds = (usual, Sizes(candidates=_OTHER_CANDIDATES, dims=usual.dims), Sizes(candidates=_OTHER_CANDIDATES, dims=lengths))
        self._tensors = [Tensors(model, {spec.name: sizes.shape(spec, signature) for spec in signature.inputs}) for sizes in worlds]
        if any(tensors.holes() for tensors in self._tensors):
            from ..cost.probe import fill  # noqa: PLC0415 - onnxruntime takes a second

            fill(model, signature, list(zip(self._tensors, worlds, strict=True)), [])

    def shape(self, value: ir.Value | None) -> Shape | None:
        """One Size per axis; None where it is unknown in some world, or where the worlds do not agree on the rank."""
        if value is None:
            return None
        found = [tensors.shape(value) for tensors in self._tensors]
        if any(shape is None for shape in found) or len({len(shape or ()) for shape in found}) > 1:
            return None
        return tuple(zip(*(shape or () for shape in found), strict=True))

    def dtype(self, value: ir.Value) -> ir.DataType | None:
        """The type of the elements, None where it is unknown."""
        return self._tensors[0].dtype(value)


def is_one(size: Size) -> bool:
    """Whether a dimension is 1 in every world."""
    return all(number == 1 for number in size)


def is_fixed(size: Size) -> bool:
    """Whether a dimension is the same in every world."""
    return len(set(size)) == 1


def product(sizes: Shape) -> Size:
    """Number of elements of these dimensions, in each world."""
    return tuple(math.prod(size[world] for size in sizes) for world in range(WORLDS))


def usual(size: Size) -> int:
    """The size in the first world: a request of the usual number of candidates."""
    return size[0]


def broadcast(shapes: list[Shape]) -> Shape:
    """The shape that an elementwise operation of these gives (numpy's rules)."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [((None,) * (rank - len(shape)), shape) for shape in shapes]
    result: list[Size] = []
    for axis in range(rank):
        present = [size for missing, shape in padded for size in [(*missing, *shape)[axis]] if size is not None]
        result.append(next((size for size in present if not is_one(size)), present[0]))
    return tuple(result)

