"""Shapes of a graph's values at several sizes of a request, so that one can tell what varies with the candidates and what never does."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    """The shapes of the values of a graph without functions, in each world.

    What a rule makes in place of a value has that value's shape, so that little has to be inferred anew after every sweep (`look`). Where
    inference leaves holes the model is run, once per world, on generated inputs.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        usual = sizes_of(signature, candidates=_CANDIDATES)
        lengths = {name: _OTHER_LENGTH + 3 * number for number, name in enumerate(usual.dims)}
        self._worlds = (usual, Sizes(candidates=_OTHER_CANDIDATES, dims=usual.dims), Sizes(candidates=_OTHER_CANDIDATES, dims=lengths))
        self._known: dict[ir.Value, Shape | None] = {}

    def look(self, model: ir.Model) -> None:
        """Find out the shapes of values that are not known yet."""
        values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
        if all(value in self._known for value in values):
            return
        tensors = [
            Tensors(model, {spec.name: world.shape(spec, self._signature) for spec in self._signature.inputs}) for world in self._worlds
        ]
        if any(hole not in self._known for one in tensors for hole in one.holes()):
            from ..cost.probe import fill  # noqa: PLC0415 - onnxruntime takes a second

            fill(model, self._signature, list(zip(tensors, self._worlds, strict=True)), [])
        for value in values:
            self._known.setdefault(value, _agreed([one.shape(value) for one in tensors]))

    def shape(self, value: ir.Value | None) -> Shape | None:
        """One Size per axis; None where it is unknown in some world, or where the worlds do not agree on the rank."""
        if value is None:
            return None
        if value.const_value is not None:
            return tuple((int(size),) * WORLDS for size in value.const_value.shape.numpy())
        return self._known.get(value)

    def learn(self, value: ir.Value, shape: Shape | None) -> None:
        """What a rule knows of a value that it has made."""
        if shape is not None and value.const_value is None:
            self._known[value] = shape


def _agreed(found: Sequence[tuple[int, ...] | None]) -> Shape | None:
    if any(shape is None for shape in found) or len({len(shape or ()) for shape in found}) > 1:
        return None
    return tuple(zip(*(shape or () for shape in found), strict=True))


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
