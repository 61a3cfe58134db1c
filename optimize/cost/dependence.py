"""Which inputs every value of a graph is computed from, and so what is the same for all candidates of a request."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Literal

import msgspec
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from ...core.signature import Role, Signature

Dependence = Literal["constant", "request", "candidate"]

_NOTHING: frozenset[str] = frozenset()
# Operands whose numbers, not only whose sizes, decide the size of what comes out.
_SIZED_BY: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("ConstantOfShape", "NonZero", "Unique", "StringSplit"), (0,)),
    **dict.fromkeys(("Reshape", "Expand", "Tile", "TopK", "Squeeze", "Unsqueeze", "Split", "SplitToSequence", "SequenceAt"), (1,)),
    **dict.fromkeys(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "OneHot"), (1,)),
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "CenterCropPad"), (1,)),
    **dict.fromkeys(("Compress", "Range", "Slice", "Pad", "Resize", "NonMaxSuppression"), (0, 1, 2, 3, 4)),
}
# Operators of other people may size their outputs as they like; these are known not to.
_KNOWN_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft", "ai.onnx.ml"})
_RANDOM = frozenset({"RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike", "Multinomial", "Bernoulli"})


class Origin(msgspec.Struct, frozen=True):
    """Where a value comes from.

    `numbers` are the inputs whose numbers it is computed from, `size` those whose numbers decide its size. `counted` says that it is
    computed from the size of something, so that it may change with the number of rows although no input's numbers enter it.
    """

    numbers: frozenset[str] = _NOTHING
    size: frozenset[str] = _NOTHING
    counted: bool = False

    def __or__(self, other: Origin) -> Origin:
        if self is other:
            return self
        return Origin(self.numbers | other.numbers, self.size | other.size, self.counted or other.counted)

    @property
    def fixed(self) -> bool:
        """Whether nothing but weights enters."""
        return not (self.numbers or self.size or self.counted)


class Flow(msgspec.Struct, frozen=True):
    """What `flow_of` found; values and nodes are keys by identity, those of subgraphs included.

    A value is `constant` when only weights and sizes of inputs enter it, `request` when of the inputs' numbers only those of request
    inputs do, else `candidate`. `control` holds, for an If, Loop or Scan, the inputs that decide what of it runs and how often.
    """

    roles: dict[str, Role]
    origins: dict[ir.Value, Origin]
    control: dict[ir.Node, frozenset[str]]

    @property
    def roles_known(self) -> bool:
        """False when no input is a request input: then the classes say nothing about what could be shared."""
        return "request" in self.roles.values()

    def inputs_of(self, value: ir.Value) -> frozenset[str]:
        """Names of the inputs whose numbers `value` is computed from."""
        return self.origins[value].numbers

    def of(self, value: ir.Value) -> Dependence:
        """The class of a value."""
        return self.of_inputs(self.origins[value].numbers)

    def of_inputs(self, names: frozenset[str]) -> Dependence:
        """The class of what is computed from these inputs."""
        if not names:
            return "constant"
        return "request" if all(self.roles[name] == "request" for name in names) else "candidate"

    def counts_rows(self, value: ir.Value) -> bool:
        """Whether `value` is computed from the size of something, which changes when request inputs are no longer repeated."""
        return self.origins[value].counted


def inlined(model: ir.Model) -> ir.Model:
    """`model` itself, or a copy (weights shared) with its functions written out where they are called."""
    if not model.functions:
        return model
    copy = model.clone()
    InlinePass()(copy)
    return copy


def flow_of(model: ir.Model, signature: Signature) -> Flow:
    """Follow the inputs of `signature` through a graph without functions (see `inlined`), into If, Loop and Scan."""
    if model.functions:
        raise AssertionError("write functions out first: flow_of(inlined(model), signature)")
    roles: dict[str, Role] = {spec.name: spec.role for spec in signature.inputs}
    flow = Flow(roles, {}, {})
    for value in model.graph.inputs:
        if value.name in roles:
            flow.origins[value] = Origin(numbers=frozenset({value.name}))
    _Follow(flow).graph(model.graph)
    return flow


class _Follow:
    """Fills a Flow, graph by graph; inputs of a graph have their origins before it is followed."""

    def __init__(self, flow: Flow) -> None:
        self._origins = flow.origins
        self._control = flow.control
        self._everything = frozenset(flow.roles)

    def graph(self, graph: ir.Graph) -> list[Origin]:
        """Follow a graph's nodes; gives the origins of its outputs."""
        for value in graph.initializers.values():
            self._origins.setdefault(value, Origin())
        for node in graph:
            for value, origin in zip(node.outputs, self._node(node), strict=True):
                self._origins[value] = origin
        return [self._of(value) for value in graph.outputs]

    def _of(self, value: ir.Value | None) -> Origin:
        return Origin() if value is None else self._origins.setdefault(value, Origin())

    def _node(self, node: ir.Node) -> list[Origin]:
        graphs = subgraphs(node)
        if graphs and node.op_type == "If":
            return self._if(node)
        if graphs and node.op_type in {"Loop", "Scan"}:
            head = self._loop_head(node) if node.op_type == "Loop" else self._scan_head(node)
            if head.fits(graphs["body"]):  # the first Scan, of opset 8, had inputs that its body did not see
                return self._repeat(node, graphs["body"], head)
        given = [self._of(value) for value in node.inputs]
        if graphs:  # an operator that runs its body as it likes: everything may depend on everything
            for graph in graphs.values():
                for value in graph.inputs:
                    self._origins[value] = reduce(or_, given, Origin())
                given.extend(self.graph(graph))
            return [_tangled(reduce(or_, given, Origin()))] * len(node.outputs)
        if node.op_type in _RANDOM:
            return [Origin(numbers=self._everything)] * len(node.outputs)
        return [_plain(node, given)] * len(node.outputs)

    def _if(self, node: ir.Node) -> list[Origin]:
        condition = self._of(node.inputs[0])
        self._control[node] = condition.numbers
        branches = [self.graph(graph) for graph in subgraphs(node).values()]
        ends = [reduce(or_, values) for values in zip(*branches, strict=True)]
        return ends if condition.fixed else [_tangled(condition | end) for end in ends]

    def _loop_head(self, node: ir.Node) -> _Head:
        trips, condition = (self._of(value) for value in (*node.inputs[:2], None, None)[:2])
        states = [self._of(value) for value in node.inputs[2:]]
        return _Head(control=trips | condition, states=states, before=[Origin(), condition], after=[], loop=True)

    def _scan_head(self, node: ir.Node) -> _Head:
        states = len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0)
        given = [self._of(value) for value in node.inputs]
        return _Head(control=Origin(), states=given[:states], before=[], after=given[states:], loop=False)

    def _repeat(self, node: ir.Node, body: ir.Graph, head: _Head) -> list[Origin]:
        """Follow a body until what it carries from one iteration to the next no longer grows."""
        control, states = head.control, head.states
        while True:
            for value, origin in zip(body.inputs, [*head.before, *states, *head.after], strict=True):
                self._origins[value] = origin
            ends = self.graph(body)
            goes_on = ends[0] if head.loop else Origin()
            ends = ends[1:] if head.loop else ends
            grown = [state | end for state, end in zip(states, ends, strict=False)]
            if grown == states and control | goes_on == control:
                break
            states, control = grown, control | goes_on
            if head.loop:
                head.before[1] = head.before[1] | goes_on
        self._control[node] = control.numbers
        collected = [reduce(or_, [end, *head.after]) for end in ends[len(states) :]]
        return [_tangled(control | origin) for origin in (*states, *collected)]


class _Head(msgspec.Struct):
    """What a body starts from: its own counters (`before`), the values it carries on (`states`) and those it is fed slices of (`after`)."""

    control: Origin
    states: list[Origin]
    before: list[Origin]
    after: list[Origin]
    loop: bool

    def fits(self, body: ir.Graph) -> bool:
        """Whether these are all inputs of `body`."""
        return len(body.inputs) == len(self.before) + len(self.states) + len(self.after)


def subgraphs(node: ir.Node) -> Mapping[str, ir.Graph]:
    """The graphs a node holds, by attribute (`then_branch`, `else_branch`, `body`)."""
    return {name: attr.as_graph() for name, attr in node.attributes.items() if attr.type == ir.AttributeType.GRAPH}


def _plain(node: ir.Node, given: list[Origin]) -> Origin:
    """What an operator without a body gives, from what it takes."""
    together = reduce(or_, given, Origin())
    if node.domain not in _KNOWN_DOMAINS:
        return _tangled(together)
    if node.op_type in {"Shape", "Size"}:
        return Origin(numbers=together.size, counted=not together.fixed)
    deciding = reduce(or_, (given[i] for i in _SIZED_BY.get(node.op_type, ()) if i < len(given)), Origin())
    return Origin(together.numbers, together.size | deciding.numbers, together.counted)


def _tangled(origin: Origin) -> Origin:
    """The same, its size depending on all numbers that enter: where no rule says better."""
    return Origin(origin.numbers, origin.size | origin.numbers, origin.counted)
