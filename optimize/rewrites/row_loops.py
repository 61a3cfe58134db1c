"""Loops that run once per row: what makes latency grow with every candidate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx_ir as ir

from .graph_sizes import size_of


def warn_row_loops(model: ir.Model) -> tuple[str, ...]:
    """One sentence per Loop whose number of trips grows, or may grow, with the number of rows; loops inside such a loop are left out."""
    shapes = [list(value.shape) for value in model.graph.inputs if value.shape is not None]
    rows = {_text(shape[0]) for shape in shapes if shape}
    fixed = frozenset(_text(dim) for shape in shapes for dim in shape[1:]) - rows
    return tuple(f"Loop '{node.name}' runs once per row: its latency grows with every candidate" for node in _row_loops(model.graph, fixed))


def _text(dim: int | ir.SymbolicDim) -> str:
    return str(dim) if isinstance(dim, int) else str(dim.value)


def _row_loops(nodes: Iterable[ir.Node], fixed: frozenset[str]) -> Iterator[ir.Node]:
    for node in nodes:
        if node.op_type == "Loop" and _trips_follow_rows(node, fixed):
            yield node
            continue
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from _row_loops(attribute.as_graph(), fixed)


def _trips_follow_rows(node: ir.Node, fixed: frozenset[str]) -> bool:
    """Whether what decides on the number of trips can be larger for more rows."""
    body = node.attributes["body"].as_graph()
    return any(_grows(value, fixed) for value in _deciding([node.inputs[0], node.inputs[1], body.outputs[0]]))


def _deciding(values: Sequence[ir.Value | None]) -> Iterator[ir.Value]:
    """The values that these are computed from, themselves included, back to sizes of tensors and to inputs."""
    pending = [value for value in values if value is not None]
    seen = set()
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        node = value.producer()
        if node is not None and node.op_type not in {"Shape", "Size"} and size_of(value) is None:
            pending.extend(one for one in node.inputs if one is not None)


def _grows(value: ir.Value, fixed: frozenset[str]) -> bool:
    """Whether this is a number of rows, or a size of which it is unknown what it grows with; `fixed` names dimensions that are not rows."""
    size = size_of(value)
    if size is not None:
        return any(symbol.axis == 0 if symbol.axis is not None else symbol.name not in fixed for symbol in size.symbols)
    node = value.producer()
    return node is not None and node.op_type in {"Shape", "Size"}
