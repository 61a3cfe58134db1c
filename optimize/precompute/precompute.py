"""What depends on one id alone is computed for all ids once, and looked up."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from ..fuse.dims import dims_of, inferred_shapes, refresh, reshape_target, same
from ..fuse.edit import constant, drop_unused, insert, replace
from ..fuse.equal_constants import share_constants
from ..rewrites.tidy import tidy
from .evaluate import table_of
from .per_id import PerId, per_ids
from .split_first import Budget, split_linears

# As BYTE_FLOPS of split_first, where nothing has to be added.
READ_BYTE_FLOPS = 8


class Precomputed(msgspec.Struct, frozen=True, kw_only=True):
    """A value that is looked up now: `nodes` went, the new table has `rows` rows of `width` numbers."""

    name: str
    nodes: int
    rows: int
    width: int
    size_bytes: int


def precompute_model(model: ir.Model, max_bytes: int) -> tuple[list[Precomputed], list[str]]:
    """Replace, in place, what depends on one id alone by a lookup where that is less work; gives what was done and what did not fit.

    New tables take at most `max_bytes` together. An id outside its table fails as before: the new table has as many rows.
    """
    budget = Budget(left=max_bytes, refused=[])
    done: list[Precomputed] = []
    with inferred_shapes(model):
        refresh(model)
        if split_linears(model, budget):
            refresh(model)
        for part in sorted(per_ids(model), key=_few_ids):
            # All tables first: a lookup that takes the place of one value is on the way to others.
            found = [(value, table_of(model, part, value)) for value in _chosen(part, budget)]
            done.extend(_look_up(model, part, value, table) for value, table in found)
        drop_unused(model)
        share_constants(model)
        tidy(model)
    return done, budget.refused


def _few_ids(part: PerId) -> bool:
    """Whether a request looks up a fixed number of ids, as those of its user: the budget goes to the candidates first."""
    return all(isinstance(size, int) for size in dims_of(part.ids) or ())


def _chosen(part: PerId, budget: Budget) -> list[ir.Value]:
    """The ends of a part that are worth a table: all of them, or those that are on their own."""
    ends = [value for value in part.ends() if any(part.work(node) for node in part.way_to(value)) and _can_stand(part, value)]
    chosen = ends if _pays(part, ends) else [value for value in ends if _pays(part, [value])]
    return [value for value in chosen if budget.takes(value.name or "", _size(part, value))]


def _can_stand(part: PerId, value: ir.Value) -> bool:
    dims, row = dims_of(value) or (), part.rows[value]
    looked_up = (*(dims_of(part.ids) or ()), *dims[len(dims) - row.axes :])
    return same(dims, looked_up) or reshape_target(dims) is not None


def _pays(part: PerId, ends: list[ir.Value]) -> bool:
    """Whether the work that goes is more than what looking up wider rows takes."""
    gone = _only_for(part, ends)
    saved = sum(part.work(node) for node in gone)
    read = sum(part.rows[node.outputs[0]].width for node in gone if node.op_type == "Gather")
    written = sum(part.rows[value].width for value in ends)
    return saved > max(0, READ_BYTE_FLOPS * 4 * (written - read))


def _only_for(part: PerId, ends: list[ir.Value]) -> set[ir.Node]:
    """The nodes that nobody needs when `ends` are looked up."""
    needed = set[ir.Node]()
    for value in part.ends():
        if value not in ends:
            needed.update(part.way_to(value))
    inside = set(part.nodes)
    way = {node for value in ends for node in part.way_to(value)}
    for node in part.nodes:
        outside = node.outputs[0].is_graph_output() or any(user not in inside for user, _ in node.outputs[0].uses())
        if outside and node.outputs[0] not in ends:
            needed.update(part.way_to(node.outputs[0]))
    return way - needed


def _size(part: PerId, value: ir.Value) -> int:
    itemsize = value.dtype.itemsize if value.dtype is not None else 4
    return int(part.vocabulary * part.rows[value].width * itemsize)


def _look_up(model: ir.Model, part: PerId, value: ir.Value, table: np.ndarray) -> Precomputed:
    node, dims, name = value.producer(), dims_of(value) or (), value.name or ""
    if node is None:
        raise AssertionError("an end is computed by a node")
    made = Precomputed(
        name=name,
        nodes=len(part.way_to(value)),
        rows=part.vocabulary,
        width=part.rows[value].width,
        size_bytes=table.nbytes,
    )
    stored = constant(model, table, f"{name}_of_{part.ids.name}")
    looked_up = (*(dims_of(part.ids) or ()), *table.shape[1:])
    target = reshape_target(dims)
    if same(dims, looked_up) or target is None:
        replace(node, "Gather", [stored, part.ids], {"axis": 0})
    else:
        rows = insert(node, "Gather", [stored, part.ids], {"axis": 0})
        replace(node, "Reshape", [rows, constant(model, np.asarray(target, np.int64), "layout")])
    return made
