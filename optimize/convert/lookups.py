"""Where a graph looks rows up, and how the indices come from its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import onnx_ir as ir

from ..rewrites.graph_pattern import constant

# Operators that only move numbers about, with the operands whose numbers they move (None: all).
_MOVES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Cast", "CastLike", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"), (0,)),
    **dict.fromkeys(("Slice", "Split", "Gather", "Pad", "SplitToSequence", "SequenceAt"), (0,)),
    **dict.fromkeys(("Concat", "SequenceConstruct", "ConcatFromSequence"), None),
}
# Operators that make one number of one number: what goes in decides what comes out, but is no longer the id itself.
_CHANGES = frozenset(
    {"Mul", "Div", "Mod", "Min", "Max", "Clip", "Where", "Floor", "Ceil", "Round", "Abs", "Neg", "Relu", "Sum", "Pow", "Log", "Sqrt"}
    | {"BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Sign", "Exp", "Sigmoid"}
)
_RUNS = frozenset({"If", "Loop", "Scan"})
_TABLES_KEEP_ROWS = frozenset({"Cast", "DequantizeLinear", "Identity"})


class Lookup(NamedTuple):
    """Indices and the number of rows they choose from, None where unknown; one number per component where an index has several."""

    indices: ir.Value
    rows: tuple[int | None, ...]


class Origin(NamedTuple):
    """The inputs whose numbers a value is made of; `moved` says that they were only moved about, at most with a constant added."""

    inputs: frozenset[str] = frozenset()
    moved: bool = True

    @property
    def fixed(self) -> bool:
        """Whether no input's numbers enter it, only constants and sizes."""
        return self.moved and not self.inputs


def lookups_of(model: ir.Model) -> list[Lookup]:
    """Every place where an index that is no constant chooses rows of something, those inside loops and branches included."""
    found = []
    for node in model.graph.all_nodes():
        index = node.inputs[0 if node.op_type == "OneHot" else 1] if len(node.inputs) > 1 else None
        if index is None or constant(index) is not None:
            continue
        data = node.inputs[0]
        match node.op_type:
            case "Gather" | "GatherElements":
                found.append(Lookup(index, (_size(data, _integer(node, "axis")),)))
            case "GatherBlockQuantized":
                found.append(Lookup(index, (_size(data, _integer(node, "gather_axis")),)))
            case "GatherND":
                found.append(Lookup(index, _component_sizes(node, index)))
            case "OneHot":
                depth = constant(node.inputs[1])
                found.append(Lookup(index, (None if depth is None else int(depth.reshape(())),)))
    return found


def _component_sizes(node: ir.Node, index: ir.Value) -> tuple[int | None, ...]:
    """An index of `n` components chooses from the first `n` axes behind the batch's."""
    data, first = node.inputs[0], _integer(node, "batch_dims")
    width = index.shape[-1] if index.shape is not None and len(index.shape) else None
    table = _constant_shape(data)
    count = width if isinstance(width, int) else len(table) - first if table is not None else 1
    return tuple(_size(data, first + component) for component in range(count))


def _integer(node: ir.Node, name: str) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else 0


def _size(value: ir.Value | None, axis: int) -> int | None:
    shape = _constant_shape(value)
    if shape is not None:
        return shape[axis] if -len(shape) <= axis < len(shape) else None
    dim = value.shape[axis] if value is not None and value.shape is not None else None
    return dim if isinstance(dim, int) else None


def _constant_shape(value: ir.Value | None) -> list[int] | None:
    """The shape of a table, also where its numbers are stored in another form."""
    while value is not None:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return [int(size) for size in tensor.shape.numpy()]
        node = value.producer()
        if node is None or node.op_type not in _TABLES_KEEP_ROWS:
            return None
        value = node.inputs[0]
    return None


class Origins:
    """Origins of values, each found once."""

    def __init__(self, model: ir.Model) -> None:
        self._known = {value: Origin(frozenset({value.name or ""})) for value in model.graph.inputs}

    def of(self, value: ir.Value) -> Origin:
        """The origin of `value`, which may lie inside a loop or branch."""
        pending = [value]
        while pending:
            current = pending[-1]
            missing = [one for one in self._operands(current.producer()) if one not in self._known]
            if current in self._known or not missing:
                pending.pop()
                self._known.setdefault(current, Origin() if constant(current) is not None else self._from(current.producer()))
            else:
                pending.extend(missing)
        return self._known[value]

    def _from(self, node: ir.Node | None) -> Origin:
        """The origin of what `node` gives, those of its operands being known; None stands for what a loop hands to its body."""
        if node is None:
            return Origin(moved=False)
        given = [Origin() if one is None else self._known[one] for one in node.inputs]
        around = [self._known[one] for one in self._operands(node)]
        if node.op_type in {"Shape", "Size"} or all(one.fixed for one in around):
            return Origin()
        if node.op_type in _MOVES:
            which = _MOVES[node.op_type]
            moving = [one for at, one in enumerate(given) if which is None or at in which]
            deciding = [one for at, one in enumerate(given) if which is not None and at not in which]
            return Origin(_inputs(moving), all(one.moved for one in moving) and all(one.fixed for one in deciding))
        if node.op_type in {"Add", "Sub"}:
            shifted = [one for one in given if not one.fixed]
            return Origin(_inputs(given), len(shifted) == 1 and shifted[0].moved and (node.op_type == "Add" or given[1].fixed))
        return Origin(_inputs(around) if node.op_type in _CHANGES or node.op_type in _RUNS else frozenset(), moved=False)

    def _operands(self, node: ir.Node | None) -> list[ir.Value]:
        """What a node reads, and what its branches or its body read from outside."""
        if node is None:
            return []
        found = [one for one in node.inputs if one is not None]
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                nodes = list(attribute.as_graph().all_nodes())
                own = {output for inner in nodes for output in inner.outputs}
                read = (value for inner in nodes for value in inner.inputs if value is not None and value not in own)
                found.extend(value for value in read if value.producer() is not None or value in self._known)
        return found


def _inputs(origins: Iterable[Origin]) -> frozenset[str]:
    return frozenset[str]().union(*(one.inputs for one in origins))
