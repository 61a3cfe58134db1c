"""Finding the hidden layers of an ONNX graph: linear nodes, operations that keep units apart, linear nodes."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.signature import Signature
from ..cost.shapes import Tensors
from ..cost.sizes import sizes_of
from .linears import Place, addend_of, has_weight, inputs_of, matrix_of, name_of, outputs_of, replace, set_matrix, take, take_outputs
from .unit_axis import Span, axis_size, concatenated, transposed, unit_wise


class Sink(msgspec.Struct, frozen=True):
    """A linear node that reads the units, where they stand in its input."""

    node: ir.Node
    span: Span

    @property
    def reads(self) -> str:
        """The tensor it reads."""
        return _name(self.node.inputs[0])

    @property
    def gives(self) -> str:
        """The tensor it computes."""
        return _name(self.node.outputs[0])


class HiddenLayer(msgspec.Struct, frozen=True, kw_only=True):
    """The units that `sources` compute, whose results are added, gated or stacked, and that only `sinks` read.

    Unit j of every source is the same unit. `vectors` are constants with an entry per unit (biases, slopes, a normalization's mean),
    `shapes` constant shapes that end in the number of units; both with where the units stand in them.
    """

    name: str
    width: int
    sources: tuple[ir.Node, ...]
    sinks: tuple[Sink, ...]
    vectors: tuple[tuple[Place, Span], ...]
    shapes: tuple[tuple[Place, Span], ...]

    @property
    def key(self) -> frozenset[str]:
        """What the same layer has in common in every copy of the model."""
        return frozenset(_name(source.outputs[0]) for source in self.sources)

    def shrink(self, model: ir.Model, chosen: np.ndarray) -> None:
        """Keep the units `chosen` (sorted indices). Tensors shared with other nodes are copied, never changed."""
        for source in self.sources:
            take_outputs(model, source, chosen)
        for place, span in self.vectors:
            take(model, place, span.axis, self.columns(span, chosen))
        for sink in self.sinks:
            set_matrix(model, sink.node, np.take(matrix_of(sink.node), self.columns(sink.span, chosen), axis=-2))
        for place, span in self.shapes:
            shape = np.array(place.array)
            shape[-1] = span.wide - self.width + len(chosen)
            replace(model, place, shape)

    def columns(self, span: Span, chosen: np.ndarray) -> np.ndarray:
        """What is left of `span.wide` columns when only the units `chosen` stay: their old positions."""
        after = np.arange(span.offset + self.width, span.wide)
        return np.concatenate([np.arange(span.offset), span.offset + chosen, after]).astype(np.int64)


def find_hidden_layers(model: ir.Model, signature: Signature) -> list[HiddenLayer]:
    """All hidden layers, each before those that its sinks compute; a layer whose units anything else reads is none.

    `model` is `prepared`: without functions and Constant nodes.
    """
    sizes = sizes_of(signature)
    shapes = Tensors(model, {spec.name: sizes.shape(spec, signature) for spec in signature.inputs})
    found: dict[frozenset[str], HiddenLayer] = {}
    for node in model.graph:
        if has_weight(node) and outputs_of(node) > 1:
            layer = _Walk(model.graph, shapes, outputs_of(node)).layer(node)
            if layer is not None:
                found.setdefault(layer.key, layer)
    return _ordered(list(found.values()))


def _ordered(layers: list[HiddenLayer]) -> list[HiddenLayer]:
    """First what the others depend on: experts that share their last layer's units each have first layers of their own."""
    ordered = list[HiddenLayer]()
    left = layers
    while left:
        waiting = {sink.node: layer.key for layer in left for sink in layer.sinks}
        ready = (layer for layer in left if all(waiting.get(source, layer.key) == layer.key for source in layer.sources))
        # Layers in a ring have no order; the first of them begins.
        chosen = next(ready, left[0])
        ordered.append(chosen)
        left = [layer for layer in left if layer is not chosen]
    return ordered


class _Walk:
    """From a linear node's result through everything that carries its units, forwards and backwards."""

    def __init__(self, graph: ir.Graph, shapes: Tensors, width: int) -> None:
        self._graph, self._shapes, self._width = graph, shapes, width
        self._spans: dict[ir.Value, Span] = {}
        self._pending: list[tuple[ir.Value, Span]] = []
        self._inside: set[ir.Node] = set()
        self._sources: list[ir.Node] = []
        self._sinks: list[Sink] = []
        self._vectors: list[tuple[Place, Span]] = []
        self._constant_shapes: list[tuple[Place, Span]] = []

    def layer(self, start: ir.Node) -> HiddenLayer | None:
        """The layer that `start` is a source of; None when its units are mixed, or read by something that is not linear."""
        self._pending.append((start.outputs[0], Span(0, self._width)))
        while self._pending:
            value, span = self._pending.pop(0)
            if value in self._spans:
                if self._spans[value] != span:
                    return None
                continue
            self._spans[value] = span
            if not (self._made(value, span) and all(self._used(*use, span) for use in value.uses())) or value.is_graph_output():
                return None
        nodes = {sink.node for sink in self._sinks}
        # A node that reads and computes units of one layer would need both its axes cut at once.
        if not self._sinks or len(nodes) < len(self._sinks) or nodes & set(self._sources):
            return None
        return HiddenLayer(
            name=name_of(start),
            width=self._width,
            sources=tuple(self._sources),
            sinks=tuple(self._sinks),
            vectors=tuple(self._vectors),
            shapes=tuple(self._constant_shapes),
        )

    def _made(self, value: ir.Value, span: Span) -> bool:
        """Look at what computes a value that carries units."""
        node = value.producer()
        if node is None or node.graph is not self._graph:
            return False
        if node in self._inside:
            return True
        if has_weight(node) and span == Span(0, self._width):
            self._sources.append(node)
            added = addend_of(node)
            width = 1 if added is None else axis_size(added, self._shapes)
            if added is not None and width == self._width:
                self._pending.append((added, span))
            return width in (1, self._width)
        before = transposed(node, span, backwards=True)
        if before is not None and node.inputs[0] is not None:
            self._inside.add(node)
            self._pending.append((node.inputs[0], before))
            return True
        return self._through(node, span)

    def _used(self, node: ir.Node, position: int, span: Span) -> bool:
        """Look at what reads a value that carries units."""
        if node.graph is not self._graph:
            return False
        behind = transposed(node, span, backwards=False)
        if behind is not None:
            self._inside.add(node)
            self._pending.append((node.outputs[0], behind))
            return True
        if has_weight(node) and position == 0 and inputs_of(node) == span.wide and span.axis == -1:
            self._sinks.append(Sink(node, span))
            return True
        if has_weight(node) and position == 2 and span == Span(0, outputs_of(node)):
            self._pending.append((node.outputs[0], span))
            return True
        joined = concatenated(node, position, span, self._shapes)
        if joined is not None:
            self._inside.add(node)
            self._pending.append((node.outputs[0], joined))
            return True
        return self._through(node, span) and node.inputs[position] in self._carriers(node, span)

    def _through(self, node: ir.Node, span: Span) -> bool:
        """Go on behind a node that keeps units apart, and at whatever else carries them into it."""
        if node in self._inside:
            return True
        found = unit_wise(node, span, self._shapes)
        if found is None:
            return False
        self._inside.add(node)
        self._pending += [(node.outputs[0], span), *((value, span) for value in found.carriers)]
        self._vectors += [(place, Span(span.offset, span.wide, found.axis)) for place in found.vectors]
        self._constant_shapes += [(place, span) for place in found.shapes]
        return True

    def _carriers(self, node: ir.Node, span: Span) -> tuple[ir.Value, ...]:
        found = unit_wise(node, span, self._shapes)
        return () if found is None else found.carriers


def _name(value: ir.Value | None) -> str:
    return (value.name if value is not None else "") or ""
