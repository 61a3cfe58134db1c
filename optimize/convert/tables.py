"""Which numbers of a model's inputs are ids, and of which tables.

Nothing is guessed from names: the position of every number goes through the graph in its place, and where it arrives at a lookup, the
number that belongs there is an id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import onnx_ir as ir

from ...core.signature import IdColumn, InputSpec, Signature
from ..cost.dependence import inlined
from .lookups import Lookup, Origins, lookups_of

_PROBE_ROWS = 2
# Sizes for dimensions that vary, all different, so that none is taken for another.
_PROBE_SIZES = (5, 7, 11, 13, 17, 19, 23, 29)
# The way from an input to a lookup holds axes and offsets; where it holds more, it leads through the model itself.
_MOST_NUMBERS = 2**20

# Rows of the table that each place behind the leading dimension indexes, None where that is unknown.
Places = dict[int, int | None]


class _Probe(NamedTuple):
    """Inputs whose numbers are their places: `first[name]` is the number of an input's first place, places are counted from 1 on."""

    feeds: dict[str, np.ndarray]
    first: dict[str, int]

    def owner(self, number: int) -> tuple[str, int]:
        """The input that `number` stands for, and the place in it."""
        name = max((name for name in self.first if self.first[name] <= number), key=lambda name: self.first[name])
        return name, number - self.first[name]


def with_tables(signature: Signature, model: ir.Model) -> Signature:
    """`signature` with the ids that it holds: `rows_of_table` where all of an input's values are ids of one table, else `id_columns`.

    Float inputs whose numbers reach a lookup in a way that cannot be followed are marked as holding ids somewhere.
    """
    sizes = _sizes(signature)
    shapes = {spec.name: [dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape] for spec in signature.inputs}
    whole = inlined(model)
    origins, probe, order = Origins(whole), _probe(shapes), {node: number for number, node in enumerate(whole.graph.all_nodes())}
    found: dict[str, Places] = {name: {} for name in shapes}
    lost: set[str] = set()
    for lookup in lookups_of(whole):
        origin = origins.of(lookup.indices)
        arrived = _arrivals(whole, lookup, probe, order) if origin.moved and origin.inputs else None
        lost.update(origin.inputs if arrived is None else ())
        for number, rows in arrived or ():
            name, place = probe.owner(number)
            bounds = [bound for bound in (rows, found[name].get(place)) if bound is not None]
            found[name][place] = min(bounds, default=None)
    inputs = [_with_ids(spec, found[spec.name], shapes[spec.name][1:], lost=spec.name in lost) for spec in signature.inputs]
    return msgspec.structs.replace(signature, inputs=tuple(inputs))


def _sizes(signature: Signature) -> dict[str, int]:
    names = dict.fromkeys(dim for spec in signature.inputs for dim in spec.shape if isinstance(dim, str))
    leading = {spec.shape[0] for spec in signature.inputs}
    others = [name for name in names if name not in leading]
    return dict.fromkeys(names, _PROBE_ROWS) | {name: _PROBE_SIZES[i % len(_PROBE_SIZES)] for i, name in enumerate(others)}


def _probe(shapes: dict[str, list[int]]) -> _Probe:
    feeds, first, number = {}, {}, 1
    for name, (rows, *inner) in shapes.items():
        count = math.prod(inner)
        feeds[name] = np.tile(np.arange(number, number + count).reshape(1, *inner), (rows, *([1] * len(inner))))
        first[name] = number
        number += count
    return _Probe(feeds, first)


def _arrivals(model: ir.Model, lookup: Lookup, probe: _Probe, order: dict[ir.Node, int]) -> list[tuple[int, int | None]] | None:
    """Numbers of the places that arrive at `lookup`, each with the rows it chooses from; None when the way there cannot be run.

    What is added to an id before the lookup leaves it fewer rows to choose from.
    """
    zeros = {name: np.zeros_like(feed) for name, feed in probe.feeds.items()}
    try:
        part = _part(model, lookup.indices, order)
        offset, value = _run(part, zeros), _run(part, probe.feeds)
        found = []
        for component, rows in enumerate(lookup.rows):
            places, added = ((one[..., component] if len(lookup.rows) > 1 else one) for one in (value - offset, offset))
            for number in np.unique(places[places > 0]):
                limit = None if rows is None else rows - int(added[places == number].max())
                found.append((int(number), limit if limit is not None and limit > 0 else None))
        return found
    except Exception:  # the evaluator raises whatever numpy raises; nothing is known then, which is what None says
        return None


def _part(model: ir.Model, indices: ir.Value, order: dict[ir.Node, int]) -> onnx.ModelProto:
    """The nodes between the inputs and `indices`, as a model of their own."""
    needed: set[ir.Value] = set()
    nodes: set[ir.Node] = set()
    pending = [indices]
    while pending:
        value = pending.pop()
        node = value.producer()
        if value not in needed and node is not None:
            nodes.add(node)
            pending.extend(one for one in node.inputs if one is not None)
        needed.add(value)
    constants = {value.name or "": value.const_value for value in needed if value.is_initializer() and value.const_value is not None}
    if any(tensor.size > _MOST_NUMBERS for tensor in constants.values()):
        raise ValueError("weights on the way to an index")
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in sorted(nodes, key=order.__getitem__)],
        "indices",
        [onnx.helper.make_value_info(value.name or "", onnx.TypeProto()) for value in model.graph.inputs if value in needed],
        [onnx.helper.make_value_info(indices.name or "", onnx.TypeProto())],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in constants.items()],
    )
    versions = [onnx.helper.make_opsetid(domain, version) for domain, version in model.graph.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=versions)


def _run(part: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415 - takes a second

    (found,) = ReferenceEvaluator(part).run(None, {value.name: feeds[value.name] for value in part.graph.input})
    return np.asarray(found).astype(np.int64)


def _with_ids(spec: InputSpec, places: Places, inner: Sequence[int], *, lost: bool) -> InputSpec:
    """`spec` with what is known of its ids; `inner` are the sizes behind the leading dimension."""
    count = math.prod(inner)
    width = spec.shape[-1] if len(spec.shape) > 1 else None
    bounds = set(places.values())
    rows = None
    columns: list[IdColumn] = []
    if len(places) == count and None not in bounds and (len(bounds) == 1 or not isinstance(width, int)):
        rows = _widest(list(bounds))
    elif isinstance(width, int):
        for column in range(width):
            here = [places[place] for place in range(column, count, width) if place in places]
            lost = lost or 0 < len(here) < count // width
            if len(here) == count // width:
                columns.append(IdColumn(column=column, rows_of_table=_widest(here)))
    else:
        lost = lost or bool(places)
    is_float = spec.dtype.startswith("float")
    somewhere = [IdColumn(column=None)] if lost and is_float and rows is None else []
    kept = [column for column in columns if is_float or column.rows_of_table is not None]
    return msgspec.structs.replace(spec, rows_of_table=rows, id_columns=(*somewhere, *kept))


def _widest(bounds: Sequence[int | None]) -> int | None:
    """What none of these tables would refuse: nothing is known where one is unknown."""
    known = [bound for bound in bounds if bound is not None]
    return max(known) if len(known) == len(bounds) else None
