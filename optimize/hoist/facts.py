"""Shapes of a graph's values at several sizes of a request, so that one can tell what varies with the candidates and what never does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from ...core.signature import Signature
from ..cost.shapes import Tensors
from ..cost.sizes import Sizes, sizes_of
from ..samples import Samples

# A dimension is known by its size in each world: with the usual candidates, with another number of them, and with other lengths too.
Size = tuple[int, ...]
Shape = tuple[Size, ...]

WORLDS = 4
# Rules weigh work at a request between the small and the large ones that rankers get.
_CANDIDATES, _OTHER_CANDIDATES, _FEW_CANDIDATES = 64, 31, 5
# A length may be as short as this, or, where the model does not run then, as the next: what cuts a sequence short shows there.
_SHORTEST = (1, 2, 5)


class Facts:
    """The shapes of the values of a graph without functions, in each world.

    What a rule makes in place of a value has that value's shape, so that little has to be inferred anew after every sweep (`look`). Where
    inference leaves holes the model is run, once per world, on `samples`, whose lengths are those of the first world.
    """

    def __init__(self, signature: Signature, samples: Samples) -> None:
        self._signature, self._samples = signature, samples
        usual = sizes_of(signature, candidates=_CANDIDATES, dims=lengths_of(signature, samples))
        other = {name: max(2, size * 3 // 4 - number) for number, (name, size) in enumerate(usual.dims.items())}
        self._usual = (
            usual,
            Sizes(candidates=_OTHER_CANDIDATES, dims=usual.dims),
            Sizes(candidates=_OTHER_CANDIDATES, dims={name: size + (size == usual.dims[name]) for name, size in other.items()}),
        )
        self._short: Sizes | None = None
        self._known: dict[ir.Value, Shape | None] = {}

    def look(self, model: ir.Model) -> None:
        """Find out the shapes of values that are not known yet."""
        values = [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]
        if all(value in self._known for value in values):
            return
        tensors = [self._tensors(model, world) for world in self._usual]
        self._fill(model, list(zip(tensors, self._usual, strict=True)))
        tensors.append(self._at_short(model))
        for value in values:
            self._known.setdefault(value, _agreed([one.shape(value) for one in tensors]))

    def _tensors(self, model: ir.Model, world: Sizes) -> Tensors:
        return Tensors(model, {spec.name: world.shape(spec, self._signature) for spec in self._signature.inputs})

    def _fill(self, model: ir.Model, worlds: list[tuple[Tensors, Sizes]]) -> str | None:
        if not any(hole not in self._known for one, _ in worlds for hole in one.holes()):
            return None
        from ..cost.probe import fill  # noqa: PLC0415 - onnxruntime takes a second

        return fill(model, self._signature, worlds, [], self._samples)

    def _at_short(self, model: ir.Model) -> Tensors:
        """Shapes at the shortest lengths that the model takes."""
        tries = [Sizes(candidates=_FEW_CANDIDATES, dims=dict.fromkeys(self._usual[0].dims, size)) for size in _SHORTEST]
        for world in [self._short] if self._short is not None else [*tries, self._usual[2]]:
            tensors = self._tensors(model, world)
            self._short = world
            if self._fill(model, [(tensors, world)]) is None:
                break
        return tensors

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


def lengths_of(signature: Signature, samples: Samples) -> dict[str, int]:
    """The size that every dimension besides rows has in the samples, by its name."""
    found: dict[str, int] = {}
    for spec in signature.inputs:
        for dim, size in zip(spec.shape[1:], samples.pool[spec.name].shape[1:], strict=True):
            if isinstance(dim, str) and dim != spec.shape[0]:
                found[dim] = max(int(size), 1)
    return found


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
