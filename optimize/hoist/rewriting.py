"""Changing a graph node by node: what a rule sees of it, and what it may do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir

from ..fuse.edit import const, drop_unused
from .facts import WORLDS, Facts, Shape, Size, is_one

_MOST_SWEEPS = 200


class Expansion(msgspec.Struct, frozen=True):
    """A value that repeats `base` (of the same rank) along some axes; `sizes` are the repetitions, int64 [1], by axis from the end.

    Along the axes in `blocks` the base has more than one entry, and the whole block is repeated (Tile); along others it has size 1, so that
    broadcasting can repeat it (Expand).
    """

    base: ir.Value
    sizes: dict[int, ir.Value]
    blocks: frozenset[int] = frozenset()


class Rewriting:
    """A graph that rules change. Values made in a sweep have a shape where their maker knows it, all others from the next sweep on."""

    def __init__(self, model: ir.Model, facts: Facts, taken: dict[str, int]) -> None:
        self.model, self.graph, self.facts = model, model.graph, facts
        self._taken = taken
        self._before: ir.Node | None = None

    def at(self, node: ir.Node) -> None:
        """New nodes go before `node`."""
        self._before = node

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Shape of a value, None where unknown."""
        return self.facts.shape(value)

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """A new initializer."""
        value = ir.Value(name=self._name(name), const_value=ir.tensor(array))
        value.dtype, value.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def ints(self, *numbers: int) -> ir.Value:
        """A constant int64 vector, as axes and shapes are given."""
        return self.constant(np.array(numbers, dtype=np.int64), "ints")

    def emit(self, op: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None) -> ir.Value:
        """A new node of the default domain with one output."""
        made = [ir.convenience.convert_attribute(name, content) for name, content in (attributes or {}).items()]
        node = ir.Node("", op, inputs, made, num_outputs=1, name=self._name(op))
        return self._insert(node)[0]

    def again(self, node: ir.Node, inputs: Sequence[ir.Value | None]) -> Sequence[ir.Value]:
        """The same operation on other inputs."""
        copies = list(node.attributes.values())
        made = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            copies,
            overload=node.overload,
            num_outputs=len(node.outputs),
            version=node.version,
            name=self._name(node.op_type),
        )
        return self._insert(made)

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let everyone who reads `old` read `new`, which has its shape."""
        self.facts.learn(new, self.shape(old))
        if old.is_graph_output() and (new.is_graph_output() or new.is_graph_input() or new.is_initializer()):
            new = self.emit("Identity", [new])
        if old.is_graph_output():
            name, shape, kind = old.name, old.shape, old.type
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
            old.name = self._name("replaced")
            new.name, new.shape, new.type = name, shape, kind
        else:
            ir.convenience.replace_all_uses_with(old, new)

    # -- repetition ------------------------------------------------------------------------------------------------------------

    def expansion(self, value: ir.Value | None) -> Expansion | None:
        """What `value` repeats, if it is the result of an Expand or a Tile that adds no axes."""
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in {"Expand", "Tile"} or node.domain != "":
            return None
        base, target = node.inputs[0], node.inputs[1]
        before, after, asked = self.shape(base), self.shape(value), self.shape(target)
        if base is None or target is None or before is None or after is None or len(before) != len(after):
            return None
        axes = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
        if not axes or asked != ((len(after),) * WORLDS,):
            return None
        blocks = frozenset(axis - len(after) for axis in axes if not is_one(before[axis]))
        return Expansion(base, {axis - len(after): self.piece(target, axis) for axis in axes}, blocks)

    def piece(self, vector: ir.Value, index: int) -> ir.Value:
        """Entry `index` of an int64 vector, as a vector of one."""
        array = const(vector)
        if array is not None:
            return self.ints(int(array[index]))
        if _single(self.shape(vector)):
            return vector
        node = vector.producer()
        if node is not None and node.op_type == "Concat" and all(_single(self.shape(part)) for part in node.inputs):
            part = node.inputs[index]
            if part is not None:
                return part
        one = self.emit("Slice", [vector, self.ints(index), self.ints(index + 1)])
        self.facts.learn(one, ((1,) * WORLDS,))
        return one

    def expand(self, value: ir.Value, sizes: Mapping[int, ir.Value], rank: int, blocks: frozenset[int] = frozenset()) -> ir.Value:
        """Repeat `value`, of this rank, along axes counted from the end: those in `blocks` as they are, others where it has size 1."""
        for op, axes in (("Tile", sizes.keys() & blocks), ("Expand", sizes.keys() - blocks)):
            if axes:
                value = self.emit(op, [value, self.vector([sizes[axis] if axis in axes else self.ints(1) for axis in range(-rank, 0)])])
        return value

    def vector(self, parts: Sequence[ir.Value]) -> ir.Value:
        """Int64 vectors of one entry, as one vector."""
        arrays = [const(part) for part in parts]
        if all(array is not None for array in arrays):
            return self.ints(*(int(array[0]) for array in arrays if array is not None))
        whole = parts[0] if len(parts) == 1 else self.emit("Concat", parts, {"axis": 0})
        self.facts.learn(whole, ((len(parts),) * WORLDS,))
        return whole

    def _insert(self, node: ir.Node) -> Sequence[ir.Value]:
        if self._before is None:
            raise AssertionError("say where first: at(node)")
        for output in node.outputs:
            output.name = self._name(f"{node.op_type}_out")
        self.graph.insert_before(self._before, node)
        return node.outputs

    def _name(self, base: str) -> str:
        number = self._taken.get(base, 0) + 1
        self._taken[base] = number
        return f"hoist.{base}.{number}"


Rule = Callable[[ir.Node, Rewriting], bool]


def rewrite(model: ir.Model, facts: Facts, rules: Mapping[str, Iterable[Rule]]) -> dict[str, int]:
    """Apply `rules` (by operator) to a graph until none applies; gives how often each did."""
    counts: dict[str, int] = {}
    taken: dict[str, int] = {}
    for _ in range(_MOST_SWEEPS):
        drop_unused(model)
        facts.look(model)
        work = Rewriting(model, facts, taken)
        if not _sweep(work, rules, counts):
            return counts
    return counts  # the graph is right after every sweep, only not as short as it could be


def _sweep(work: Rewriting, rules: Mapping[str, Iterable[Rule]], counts: dict[str, int]) -> bool:
    changed = False
    for node in list(work.graph):
        if node.domain != "" or not any(output.uses() or output.is_graph_output() for output in node.outputs):
            continue
        work.at(node)
        for rule in rules.get(node.op_type, ()):
            if rule(node, work):
                counts[rule.__name__] = counts.get(rule.__name__, 0) + 1
                changed = True
                break
    return changed


def is_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant."""
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _single(shape: tuple[Size, ...] | None) -> bool:
    return shape is not None and len(shape) == 1 and is_one(shape[0])
