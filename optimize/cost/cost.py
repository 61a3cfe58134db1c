"""What a request costs, node by node: FLOPs and bytes, and how much of it is the same for all candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
import onnx_ir as ir

from ...core.signature import Layout, Signature
from ..samples import Samples
from .dependence import Dependence, Flow, flow_of, inlined
from .embeddings import Table, tables_of, weight_bytes
from .flops import flops_of
from .operands import Operands, UnknownCost, op_name
from .repeats import body_of, branches_of, counters_of
from .shapes import Tensors
from .sizes import Sizes, sizes_of
from .traffic import bytes_of


class NodeCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node's work in a request, all iterations of the loop it is in together.

    `flops_once` and `bytes_once` are what remains when request-only work is done once per request instead of once per candidate; for
    other nodes the same as today. None is unknown, and `unknown` says why. `shape` is that of the first output. `within` names the
    If, Loop or Scan that holds the node.
    """

    name: str
    op: str
    within: str
    shape: tuple[int, ...] | None
    dependence: Dependence
    flops: int | None
    flops_once: int | None
    bytes: int | None
    bytes_once: int | None
    unknown: str = ""


class Split(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sum over nodes, by what they depend on: `request + candidate + constant == total`.

    `request_once` is what the request-only part would be if it were done once. `uncounted` is the number of nodes whose share is
    unknown, so that every sum is at least what it says.
    """

    total: int
    request: int
    request_once: int
    candidate: int
    constant: int
    uncounted: int

    @property
    def total_once(self) -> int:
        """The whole if request-only work were done once."""
        return self.total - self.request + self.request_once


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The work of one request of `sizes.candidates` candidates as the model runs today: in layout `rows` everything once per candidate.

    An If counts its costlier branch; a node inside a loop counts as many times as the loop runs. `notes` say what could not be found out.
    """

    sizes: Sizes
    layout: Layout
    roles_known: bool
    weight_bytes: int
    tables: tuple[Table, ...]
    nodes: tuple[NodeCost, ...]
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> Split:
        """Floating-point operations; a multiply and an add are two."""
        return _split((node.dependence, node.flops, node.flops_once) for node in self.nodes)

    @property
    def bytes(self) -> Split:
        """Bytes read and written by the nodes."""
        return _split((node.dependence, node.bytes, node.bytes_once) for node in self.nodes)

    @property
    def unknown(self) -> tuple[NodeCost, ...]:
        """Nodes that are in no sum of FLOPs."""
        return tuple(node for node in self.nodes if node.flops is None)

    def costliest(self, count: int) -> tuple[NodeCost, ...]:
        """Nodes with most FLOPs, the costliest first."""
        return tuple(sorted((node for node in self.nodes if node.flops), key=lambda node: -(node.flops or 0))[:count])


def cost_of(model: ir.Model, signature: Signature, sizes: Sizes | None = None, samples: Samples | None = None) -> Cost:
    """The cost of `model`, which is not changed; where shape inference leaves holes it is run, once, on `samples` or generated inputs."""
    sizes = sizes or sizes_of(signature)
    whole = inlined(model)
    flow = flow_of(whole, signature)
    worlds = [(_tensors(whole, signature, sizes), sizes)]
    if flow.roles_known and signature.layout == "rows":
        worlds.append((_tensors(whole, signature, sizes.of_one_row()), sizes.of_one_row()))
    today, once = worlds[0][0], worlds[-1][0]
    failure = _fill(whole, signature, worlds, counters_of(whole, flow, today), samples)
    notes = (f"ONNX Runtime cannot run it to show the shapes that inference leaves open: {failure}",) if failure else ()
    return Cost(
        sizes=sizes,
        layout=signature.layout,
        roles_known=flow.roles_known,
        weight_bytes=weight_bytes(whole),
        tables=tables_of(whole, flow, [spec.name for spec in signature.inputs]),
        nodes=tuple(_Walk(flow, today, once).graph(whole.graph, _Place())),
        notes=notes,
    )


class _Place(msgspec.Struct, frozen=True):
    """Where a graph is: the names of what holds it, the inputs that decide whether it runs, how often it does today and in one row."""

    within: str = ""
    control: frozenset[str] = frozenset()
    times: int = 1
    times_once: int = 1


class _Walk:
    """Costs of the nodes of a graph, leaves only, in two worlds: as it runs today, and with one row."""

    def __init__(self, flow: Flow, today: Tensors, once: Tensors) -> None:
        self._flow, self._today, self._once = flow, today, once
        self._worlds = (today,) if once is today else (today, once)

    def graph(self, graph: ir.Graph, place: _Place) -> list[NodeCost]:
        return [cost for node in graph for cost in self._node(node, place)]

    def _node(self, node: ir.Node, place: _Place) -> list[NodeCost]:
        if node in self._flow.control:
            try:
                return self._if(node, place) if node.op_type == "If" else self._repeated(node, place)
            except UnknownCost as reason:
                return [self._record(node, place, str(reason))]
        return [self._record(node, place)]

    def _if(self, node: ir.Node, place: _Place) -> list[NodeCost]:
        """The branch that is taken where that is known, else the costlier one, and what is unknown in the other."""
        inner = self._inside(node, place)
        branches = []
        for graph in branches_of(node, self._today):
            for world in self._worlds:
                world.enter(graph, [])
            branches.append(self.graph(graph, inner))
        chosen = max(branches, key=lambda costs: sum(cost.flops or 0 for cost in costs))
        return [*chosen, *(cost for costs in branches if costs is not chosen for cost in costs if cost.flops is None)]

    def _repeated(self, node: ir.Node, place: _Place) -> list[NodeCost]:
        bodies = [body_of(node, self._flow, world) for world in self._worlds]
        inner = self._inside(node, place, bodies[0].times, bodies[-1].times)
        return self.graph(bodies[0].graph, inner)

    def _inside(self, node: ir.Node, place: _Place, times: int = 1, times_once: int = 1) -> _Place:
        return _Place(
            within=f"{place.within}/{_name(node)}" if place.within else _name(node),
            control=place.control | self._flow.control[node],
            times=place.times * times,
            times_once=place.times_once * times_once,
        )

    def _record(self, node: ir.Node, place: _Place, unknown: str = "") -> NodeCost:
        dependence = self._flow.of_inputs(place.control.union(*(self._flow.inputs_of(value) for value in node.outputs)))
        today, once = Operands(node, self._today), Operands(node, self._once)
        flops, no_flops = (None, unknown) if unknown else _times(flops_of, today, place.times)
        moved, no_bytes = (None, unknown) if unknown else _times(bytes_of, today, place.times)
        shared = dependence == "request" and not unknown
        return NodeCost(
            name=_name(node),
            op=op_name(node),
            within=place.within,
            shape=self._today.shape(node.outputs[0]) if node.outputs else None,
            dependence=dependence,
            flops=flops,
            flops_once=flops if flops is None or not shared else _times(flops_of, once, place.times_once)[0],
            bytes=moved,
            bytes_once=moved if moved is None or not shared else _times(bytes_of, once, place.times_once)[0],
            unknown=no_flops or no_bytes,
        )


def _fill(
    model: ir.Model, signature: Signature, worlds: list[tuple[Tensors, Sizes]], counters: list[ir.Value], samples: Samples | None
) -> str | None:
    """Run the model where shapes are missing; gives the reason when it cannot be run."""
    if not counters and not any(tensors.holes() for tensors, _ in worlds):
        return None
    from .probe import fill  # noqa: PLC0415 - onnxruntime takes a second

    return fill(model, signature, worlds, counters, samples)


def _times(formula: Callable[[Operands], int], x: Operands, times: int) -> tuple[int | None, str]:
    """What `formula` gives, times a number of runs; or why it gives nothing."""
    try:
        return formula(x) * times, ""
    except UnknownCost as reason:
        return None, str(reason)


def _split(parts: Iterable[tuple[Dependence, int | None, int | None]]) -> Split:
    sums = {"request": 0, "candidate": 0, "constant": 0}
    once = uncounted = 0
    for dependence, today, shared in parts:
        if today is None:
            uncounted += 1
            continue
        sums[dependence] += today
        if dependence == "request":
            once += today if shared is None else shared
    return Split(total=sum(sums.values()), request_once=once, uncounted=uncounted, **sums)


def _tensors(model: ir.Model, signature: Signature, sizes: Sizes) -> Tensors:
    return Tensors(model, {spec.name: sizes.shape(spec, signature) for spec in signature.inputs})


def _name(node: ir.Node) -> str:
    return node.name or (node.outputs[0].name if node.outputs else None) or node.op_type
