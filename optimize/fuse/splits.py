"""Columns of one matrix, taken and converted one by one: DeepCTR's models take ids and numbers in one matrix of floats."""

from __future__ import annotations

import itertools
from collections import defaultdict

import msgspec
import numpy as np
import onnx_ir as ir

from .dims import dims_of
from .edit import bypass, const, constant, given, insert

_FEWEST = 3


class _Part(msgspec.Struct, frozen=True):
    """A Slice that takes `start` to `stop` along one axis of known size."""

    node: ir.Node
    start: int
    stop: int


def share_casts(model: ir.Model) -> int:
    """Columns that are each cast to the same type are cast together, before they are taken; returns how many casts went.

    What is cast without need are the columns between them: nothing is done where those are more than the columns that are needed.
    """
    gone = 0
    for (source, axis), parts in _parts(model).items():
        wanted: dict[int, list[tuple[_Part, ir.Node]]] = defaultdict(list)
        for part in parts:
            for user in {user for user, _ in part.node.outputs[0].uses()}:
                if user.op_type == "Cast" and user.graph is model.graph and not user.outputs[0].is_graph_output():
                    wanted[user.attributes.get_int("to", 0)].append((part, user))
        for target, casts in wanted.items():
            size = (dims_of(source) or ())[axis]
            needed = sum(part.stop - part.start for part in {id(part): part for part, _ in casts}.values())
            if len(casts) < _FEWEST or not isinstance(size, int) or size > 2 * needed:
                continue
            whole = insert(_earliest([part.node for part, _ in casts], model), "Cast", [source], {"to": target})
            whole.shape, whole.dtype = source.shape, ir.DataType(target)
            for part, cast in casts:
                taken = insert(cast, "Slice", [whole, *part.node.inputs[1:]])
                bypass(cast, taken)
            gone += len(casts) - 1
    return gone


def join_slices(model: ir.Model) -> int:
    """Slices of one tensor that do not overlap become one Split; returns how many nodes went."""
    gone = 0
    for (source, axis), parts in _parts(model).items():
        distinct = {(part.start, part.stop) for part in parts}
        size = (dims_of(source) or ())[axis]
        bounds = sorted(distinct)
        apart = all(one[1] <= other[0] for one, other in itertools.pairwise(bounds))
        if len(distinct) < _FEWEST or not apart or not isinstance(size, int):
            continue
        sizes, places, at = list[int](), dict[tuple[int, int], int](), 0
        for start, stop in [*bounds, (size, size)]:
            if start > at:
                sizes.append(start - at)
            if stop > start:
                places[start, stop] = len(sizes)
                sizes.append(stop - start)
            at = stop
        lengths = constant(model, np.asarray(sizes, np.int64), f"{source.name}_columns")
        split = ir.node("Split", [source, lengths], attributes={"axis": axis}, num_outputs=len(sizes))
        first = _earliest([part.node for part in parts], model)
        model.graph.insert_before(first, split)
        for part in parts:
            bypass(part.node, split.outputs[places[part.start, part.stop]])
        gone += len(parts) - 1
    return gone


def _parts(model: ir.Model) -> dict[tuple[ir.Value, int], list[_Part]]:
    found: dict[tuple[ir.Value, int], list[_Part]] = defaultdict(list)
    for node in model.graph:
        part = _part(node)
        if part is not None and node.inputs[0] is not None:
            found[node.inputs[0], part[0]].append(_Part(node, part[1], part[2]))
    return found


def _part(node: ir.Node) -> tuple[int, int, int] | None:
    """Axis, start and stop of a Slice along one axis of known size, in steps of 1; None for others and for empty ones."""
    if node.op_type != "Slice" or node.domain not in {"", "ai.onnx"} or len(node.inputs) < 3:
        return None
    dims = dims_of(node.inputs[0])
    starts, stops = const(node.inputs[1]), const(node.inputs[2])
    axes, steps = const(given(node, 3)), const(given(node, 4))
    if dims is None or starts is None or stops is None or starts.size != 1 or (given(node, 3) is not None and axes is None):
        return None
    if given(node, 4) is not None and (steps is None or int(steps.reshape(())) != 1):
        return None
    axis = (0 if axes is None else int(axes.reshape(()))) % len(dims)
    size = dims[axis]
    if not isinstance(size, int):
        return None
    start, stop, _ = slice(int(starts.reshape(())), int(stops.reshape(()))).indices(size)
    return (axis, start, stop) if start < stop else None


def _earliest(nodes: list[ir.Node], model: ir.Model) -> ir.Node:
    wanted = set(nodes)
    return next(node for node in model.graph if node in wanted)
