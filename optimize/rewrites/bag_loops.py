"""ONNX files in which torch.onnx has turned an EmbeddingBag into a Loop over rows: back to a lookup and a reduction.

Both of its exporters are recognised by what their loop computes, and only loops over the rows of one matrix are rewritten: with bags of
equal length there is nothing to loop for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from .embedding_bag import MAX, MEAN, MODES, SUM, Notes
from .graph_pattern import Pattern, constant, unify
from .graph_sizes import dims_of, product, size_of
from .row_loops import warn_row_loops

_OLDEST_OPSET = 13  # axes as inputs
_REDUCE = ("ReduceSum", "ReduceMean", "ReduceMax")

# The older exporter: trips known, the body slices the indices of one bag and looks them up.
_ENDS: Pattern = ("Slice", "offsets", 1, np.iinfo(np.int64).max, 0, 1)
_FROM: Pattern = ("Unsqueeze", ("Gather", "offsets", "i"), 0)
_TO: Pattern = ("Unsqueeze", ("Gather", _ENDS, "i"), 0)
_TAKEN: Pattern = ("Gather", "weight", ("Slice", "flat", _FROM, _TO, 0))
_SCALED: Pattern = ("Mul", _TAKEN, ("Unsqueeze", ("Slice", "scales", _FROM, _TO, 0), 1))

# The newer one: all vectors looked up (and scaled, by ones if by nothing) before the loop, the body slices those of one bag.
_FLAT: Pattern = [("Reshape", "flat", -1), "flat"]
_ONES: Pattern = ("Expand", 1, "any")
_VECTORS: Pattern = [
    ("Mul", ("Gather", "weight", _FLAT), ("Unsqueeze", _ONES, 1)),
    ("Mul", ("Gather", "weight", _FLAT), ("Unsqueeze", "scales", 1)),
    ("Gather", "weight", _FLAT),
]
_I: Pattern = ("Reshape", "i", -1)
_START: Pattern = ("Slice", "offsets", _I, ("Add", _I, 1))
_END: Pattern = ("Slice", "offsets", ("Add", _I, 1), ("Add", _I, 2))
_IS_LAST: Pattern = ("Equal", "i", ("Sub", "bags", 1))
_PART: Pattern = ("Slice", "vectors", _START, _END)
_LENGTH: Pattern = ("Sub", ("Shape", "flat"), _START)
_LAST_SUM: Pattern = ("ReduceSum", _PART, 0)
_ROWS: tuple[Pattern, ...] = (
    ("ReduceSum", _PART, 0),
    (
        "If",
        _IS_LAST,
        ("If", ("Greater", _LENGTH, 0), ("Div", _LAST_SUM, ("Cast", _LENGTH)), _LAST_SUM),
        ("ReduceMean", _PART, 0),
    ),
    ("ReduceMax", ("If", _IS_LAST, ("Slice", "vectors", _START, "count"), _PART), 0),
)
_COUNT: Pattern = [("Shape", _FLAT), ("Reshape", ("Size", "flat"), -1), ("Unsqueeze", ("Gather", ("Shape", "flat"), 0), 0)]
_OFFSETS: Pattern = ("Concat", ("Range", 0, "end", "step"), _COUNT)

# With a padding index, an inner loop collects the positions to keep.
_FIRST: Pattern = ("Gather", "offsets", "i")
_BEHIND: Pattern = ("Gather", "offsets", ("Add", "i", 1))
_INDEX: Pattern = ("Gather", "flat", "j")
_KEPT_INDEX: Pattern = ("If", ("Less", _INDEX, 0), ("Add", _INDEX, "table"), _INDEX)
_KEEP: Pattern = ("If", ("Not", ("Equal", _KEPT_INDEX, "padding")), ("Concat", "kept", ("Reshape", "j", -1)), "kept")


class _Loop(NamedTuple):
    """What a recognised loop computes: values of the graph around it by name, the mode, and the value that holds the result."""

    found: dict[str, ir.Value]
    mode: int
    result: ir.Value


def rewrite_graph(model: ir.Model) -> Notes:
    """Replace, in `model`, every EmbeddingBag loop over the rows of one matrix; the result is equal up to rounding.

    Loops that remain and run once per row are warned about, by node.
    """
    done = []
    for node in [node for node in model.graph if node.op_type == "Loop"]:
        loop = _older(node) or _newer(node)
        matrix = _matrix(loop) if loop is not None and opset(model) >= _OLDEST_OPSET else None
        if loop is None or matrix is None:
            continue
        _replace(model, loop, *matrix)
        done.append(f"Loop '{node.name}' (EmbeddingBag, {MODES[loop.mode]}) written as a lookup and a reduction")
    if done:
        ir.passes.common.RemoveUnusedNodesPass()(model)
    return Notes(done=tuple(done), warnings=warn_row_loops(model))


def opset(model: ir.Model) -> int:
    """Version of the default operator set."""
    return int(model.graph.opset_imports.get("", 0))


# -- recognising ---------------------------------------------------------------------------------------------------------------------


def _older(node: ir.Node) -> _Loop | None:
    body = node.attributes["body"].as_graph()
    if len(node.inputs) != 2 or len(body.outputs) != 2 or not _always(node.inputs[1]) or not _always(body.outputs[0]):
        return None
    for mode, reduce in enumerate(_REDUCE):
        for vectors in (_SCALED, _TAKEN):
            found = {"i": body.inputs[0]}
            trips: Pattern = ("Gather", ("Shape", _ENDS), 0)
            if unify(body.outputs[1], (f"{reduce} keepdims=0", vectors, 0), found) and unify(node.inputs[0], trips, found):
                return _Loop(found, mode, node.outputs[0])
    return None


def _newer(node: ir.Node) -> _Loop | None:
    body = node.attributes["body"].as_graph()
    if len(node.inputs) != 4 or node.inputs[0] is not None:
        return None
    for counter in (0, 1):
        i, sequence = body.inputs[2 + counter], body.inputs[3 - counter]
        after, grown = body.outputs[1 + counter], body.outputs[2 - counter]
        whole = _only_user(node.outputs[1 - counter], "ConcatFromSequence")
        found = {"i": i, "sequence": sequence}
        steps = unify(node.inputs[2 + counter], 0, found) and unify(after, ("Add", "i", 1), found)
        ends = unify(body.outputs[0], ("Less", ("Add", "i", 1), "bags"), found) and unify(node.inputs[1], ("Less", 0, "bags"), found)
        starts_empty = unify(node.inputs[3 - counter], ("SequenceEmpty",), found)
        if not (steps and ends and starts_empty) or whole is None or not unify(grown, ("SequenceInsert", "sequence", "row"), found):
            continue
        for mode in range(len(_REDUCE)):
            attempt = dict(found)
            if _row_is(attempt, mode) and unify(attempt["vectors"], _VECTORS, attempt) and _bags_are_all(attempt):
                return _Loop(attempt, mode, whole)
    return None


def _row_is(found: dict[str, ir.Value], mode: int) -> bool:
    """Whether the row that each trip adds is the bag reduced as `mode` says, with or without a padding index."""
    row = found["row"]
    if unify(row, ("If", ("Equal", _START, _END), "none", _ROWS[mode]), found):
        return _is_zero(found["none"]) and ("count" not in found or unify(found["count"], _COUNT, found))
    kept: Pattern = ("If", ("Equal", ("Size", "positions"), 0), "none", (_REDUCE[mode], ("Gather", "vectors", "positions"), 0))
    return unify(row, kept, found) and _is_zero(found["none"]) and _keeps_all_but_padding(found)


def _keeps_all_but_padding(found: dict[str, ir.Value]) -> bool:
    """Whether `positions` come from the inner loop that goes through a bag and leaves out the padding index."""
    node = found["positions"].producer()
    if node is None or node.op_type != "Loop" or len(node.inputs) != 4 or node.inputs[0] is not None:
        return False
    body = node.attributes["body"].as_graph()
    kept = node.outputs.index(found["positions"])
    found |= {"j": body.inputs[3 - kept], "kept": body.inputs[2 + kept]}
    start = constant(node.inputs[2 + kept])
    walks = unify(node.inputs[3 - kept], _FIRST, found) and unify(body.outputs[2 - kept], ("Add", "j", 1), found)
    ends = unify(body.outputs[0], ("Less", ("Add", "j", 1), _BEHIND), found) and unify(node.inputs[1], ("Less", _FIRST, _BEHIND), found)
    collects = start is not None and start.size == 0 and unify(body.outputs[1 + kept], _KEEP, found)
    return walks and ends and collects and constant(found["padding"]) is not None and constant(found["table"]) is not None


def _bags_are_all(found: dict[str, ir.Value]) -> bool:
    """Whether there are as many trips as offsets before the end is put behind them."""
    return unify(found["offsets"], ("Concat", "begins", _COUNT), found) and unify(found["bags"], ("Size", "begins"), found)


def _matrix(loop: _Loop) -> tuple[ir.Value, ir.Value | None] | None:
    """Indices `[rows, length]` and scales (or None) when the offsets are the beginnings of a matrix's rows; None otherwise."""
    found = dict(loop.found)
    if not unify(found["offsets"], _OFFSETS, found):
        return None
    indices = _before_flattening(found["flat"])
    scales = _before_flattening(found["scales"]) if "scales" in found else None
    dims = dims_of(indices) if indices is not None else None
    if indices is None or dims is None or len(dims) != 2 or ("scales" in found and (scales is None or dims_of(scales) != dims)):
        return None
    regular = size_of(found["step"]) == dims[1] and size_of(found["end"]) == product(dims)
    return (indices, scales) if regular else None


def _before_flattening(flat: ir.Value) -> ir.Value | None:
    found: dict[str, ir.Value] = {}
    return found["matrix"] if unify(flat, ("Reshape", "matrix", -1), found) else None


def _only_user(value: ir.Value, op_type: str) -> ir.Value | None:
    uses = list(value.uses())
    if len(uses) != 1 or uses[0].node.op_type != op_type or "new_axis" in uses[0].node.attributes:
        return None
    axis = uses[0].node.attributes.get("axis")
    return uses[0].node.outputs[0] if axis is not None and axis.as_int() == 0 else None


def _always(value: ir.Value | None) -> bool:
    found = constant(value)
    return value is None or (found is not None and bool(found.all()))


def _is_zero(value: ir.Value) -> bool:
    found = constant(value)
    return found is not None and not found.any()


# -- rewriting -----------------------------------------------------------------------------------------------------------------------


class _Nodes:
    """New nodes in order, with fresh outputs."""

    def __init__(self, version: int) -> None:
        self.nodes: list[ir.Node] = []
        self._axes_are_inputs = version >= 18

    def __call__(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        node = ir.node(op_type, inputs, attributes)
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, value: float | list[int], dtype: ir.DataType = ir.DataType.INT64) -> ir.Value:
        node = ir.node("Constant", [], {"value": ir.tensor(value, dtype=dtype)})
        self.nodes.append(node)
        return node.outputs[0]

    def reduce(self, mode: int, value: ir.Value, *, keepdims: int = 0) -> ir.Value:
        """Over axis 1."""
        if self._axes_are_inputs or mode == SUM:
            return self(_REDUCE[mode], value, self.constant([1]), keepdims=keepdims)
        node = ir.node(_REDUCE[mode], [value], {"axes": [1], "keepdims": keepdims})
        self.nodes.append(node)
        return node.outputs[0]


def _replace(model: ir.Model, loop: _Loop, indices: ir.Value, scales: ir.Value | None) -> None:
    """Put the lookup of `[rows, length]` and its reduction in the place of the loop's result."""
    build = _Nodes(opset(model))
    weight = loop.found["weight"]
    dtype = weight.dtype or ir.DataType.FLOAT
    vectors = build("Gather", weight, indices)
    if scales is not None:
        vectors = build("Mul", vectors, build("Unsqueeze", scales, build.constant([-1])))
    padding = constant(loop.found["padding"]) if "padding" in loop.found else None
    if padding is None:
        value = build.reduce(loop.mode, vectors)
    else:
        padded = build("Equal", indices, build.constant(int(padding), indices.dtype or ir.DataType.INT64))
        value = _reduce_kept(build, loop.mode, vectors, padded, dtype)
    anchor = loop.result.producer()
    if anchor is None:
        raise AssertionError("a loop's result has a producer")
    ir.convenience.replace_nodes_and_values(model.graph, anchor, [anchor], build.nodes, [loop.result], [value])


def _reduce_kept(build: _Nodes, mode: int, vectors: ir.Value, padded: ir.Value, dtype: ir.DataType) -> ir.Value:
    """`[rows, dim]` from the vectors that are not `padded [rows, length]`; 0 where all are."""
    fill = build.constant(float("-inf") if mode == MAX else 0.0, dtype)
    vectors = build("Where", build("Unsqueeze", padded, build.constant([-1])), fill, vectors)
    if mode == SUM:
        return build.reduce(SUM, vectors)
    kept = build.reduce(SUM, build("Cast", build("Not", padded), to=int(dtype)), keepdims=1)
    if mode == MEAN:
        return build("Div", build.reduce(SUM, vectors), build("Max", kept, build.constant(1.0, dtype)))
    zero = build.constant(0.0, dtype)
    return build("Where", build("Equal", kept, zero), zero, build.reduce(MAX, vectors))
