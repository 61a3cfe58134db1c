"""Transposes that only turn numbers round for elementwise work and back again: PyTorch's batch normalisation over a sequence does so."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from .batch_norm import scale_and_shift
from .edit import bypass, const, constant, graph_of, insert, replace
from .operators import is_elementwise


class _Region(msgspec.Struct, kw_only=True):
    """Elementwise nodes between transposes by `perm`; `turned` holds their values, with the straight value of each entry."""

    perm: tuple[int, ...]
    entries: dict[ir.Value, ir.Value]
    nodes: list[ir.Node]
    turned: set[ir.Value]

    def leaves(self) -> list[ir.Value]:
        """Values that something outside reads turned."""
        inside = set(self.nodes)

        def read(value: ir.Value) -> bool:
            readers = [user for user, _ in value.uses()]
            return value.is_graph_output() or any(user not in inside and not self.turns_back(user) for user in readers)

        return [value for value in self.turned if read(value)]

    def turns_back(self, node: ir.Node) -> bool:
        """Whether `node` undoes the transpose."""
        return _perm(node) == _inverse(self.perm)

    def gain(self) -> int:
        """How many transposes fewer there are when the region works on straight values."""
        leaves = set(self.leaves())
        backs = {user for value in self.turned for user, _ in value.uses() if self.turns_back(user)}
        return len(backs) + len([value for value in self.entries if value not in leaves]) - len(leaves - set(self.entries))


def drop_transposes(model: ir.Model) -> int:
    """Let elementwise nodes between a Transpose and its inverse work on what is not transposed; returns how many transposes went."""
    gained = 0
    for node in list(model.graph):
        perm = _perm(node)
        if perm is None or node.graph is not model.graph or list(perm) == sorted(perm):
            continue
        region = _region(node, perm, model)
        gain = region.gain()
        if gain > 0 and region.nodes:
            _straighten(region, model)
            gained += gain
    return gained


def _region(start: ir.Node, perm: tuple[int, ...], model: ir.Model) -> _Region:
    region = _Region(perm=perm, entries={}, nodes=[], turned=set())
    _enter(region, start)
    started = False
    for node in model.graph:
        started = started or node is start
        if started and _joins(node, region):
            region.nodes.append(node)
            region.turned.add(node.outputs[0])
    return region


def _enter(region: _Region, transpose: ir.Node) -> None:
    source = transpose.inputs[0]
    if source is not None:
        region.entries[transpose.outputs[0]] = source
        region.turned.add(transpose.outputs[0])


def _joins(node: ir.Node, region: _Region) -> bool:
    """Whether a node only works on turned values and constants; other transposes by the same permutation are entries too."""
    given = [value for value in node.inputs if value is not None]
    if not any(value in region.turned for value in given):
        return False
    if node.op_type == "BatchNormalization":
        return len(region.perm) > 2 and given[0] in region.turned and scale_and_shift(node) is not None
    if not is_elementwise(node):
        return False
    for value in given:
        maker = value.producer()
        turns = maker is not None and _perm(maker) == region.perm
        numbers = const(value)
        if value not in region.turned and not turns and (numbers is None or numbers.ndim > len(region.perm)):
            return False
    for value in given:
        maker = value.producer()
        if value not in region.turned and maker is not None and _perm(maker) == region.perm:
            _enter(region, maker)
    return True


def _straighten(region: _Region, model: ir.Model) -> None:
    straight: dict[ir.Value, ir.Value] = dict(region.entries)
    leaves = region.leaves()
    for node in region.nodes:
        inputs = [_straight_input(value, region, straight, model) for value in node.inputs]
        straight[node.outputs[0]] = _made(node, inputs, region, model)
    for value, replacement in straight.items():
        for user in {user for user, _ in value.uses() if region.turns_back(user)}:
            bypass(user, replacement)
    for value in leaves:
        maker = value.producer()
        if value not in region.entries and maker is not None:
            replace(maker, "Transpose", [straight[value]], {"perm": list(region.perm)})


def _straight_input(value: ir.Value | None, region: _Region, straight: dict[ir.Value, ir.Value], model: ir.Model) -> ir.Value | None:
    numbers = const(value)
    if value is None or value in straight:
        return None if value is None else straight[value]
    if numbers is None:
        raise AssertionError("a region holds turned values and constants")
    return value if numbers.size == 1 else constant(model, _turned_back(numbers, region.perm), f"{value.name}_turned")


def _made(node: ir.Node, inputs: list[ir.Value | None], region: _Region, model: ir.Model) -> ir.Value:
    """The same node on straight values."""
    numbers = scale_and_shift(node)
    if numbers is None:
        new = ir.node(node.op_type, inputs, attributes=dict(node.attributes), name=node.name)
        graph_of(node).insert_before(node, new)
        return new.outputs[0]
    dtype = np.float64 if node.inputs[1] is not None and node.inputs[1].dtype is ir.DataType.DOUBLE else np.float32
    per_channel = [-1, *[1] * (len(region.perm) - 2)]
    scale, shift = (
        constant(model, _turned_back(array.astype(dtype).reshape(per_channel), region.perm), f"{node.name or 'norm'}_{name}")
        for array, name in zip(numbers, ("scale", "shift"), strict=True)
    )
    return insert(node, "Add", [insert(node, "Mul", [inputs[0], scale]), shift])


def _turned_back(numbers: np.ndarray, perm: tuple[int, ...]) -> np.ndarray:
    """A constant that broadcasts against straight values as it did against turned ones, without leading axes of size 1."""
    full = numbers.reshape([1] * (len(perm) - numbers.ndim) + list(numbers.shape)).transpose(_inverse(perm))
    while full.ndim > 1 and full.shape[0] == 1:
        full = full[0]
    return full


def _perm(node: ir.Node) -> tuple[int, ...] | None:
    if node.op_type != "Transpose" or node.domain not in {"", "ai.onnx"}:
        return None
    found = node.attributes.get_ints("perm", None)
    return None if found is None else tuple(found)


def _inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.argsort(perm))
