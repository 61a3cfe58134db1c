"""What an If chooses from, and how often a Loop or Scan runs its body."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from .dependence import Flow, subgraphs
from .operands import UnknownCost
from .shapes import Shape, Tensors


class Body(msgspec.Struct, frozen=True):
    """The graph that is repeated, its shapes known to the tensors it was made with, and how many times it runs."""

    graph: ir.Graph
    times: int


def branches_of(node: ir.Node, tensors: Tensors) -> list[ir.Graph]:
    """The branches of an If that may be taken: one where the condition is a constant."""
    condition = tensors.numbers(node.inputs[0])
    graphs = subgraphs(node)
    if condition is None:
        return [graphs["then_branch"], graphs["else_branch"]]
    return [graphs["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]]


def counters_of(model: ir.Model, flow: Flow, tensors: Tensors) -> list[ir.Value]:
    """Numbers of iterations that are computed in the main graph from sizes alone: a run can tell them."""
    found: dict[ir.Value, None] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        count = node.inputs[0] if node.op_type == "Loop" else None
        producer = count.producer() if count is not None else None
        if count is None or producer is None or producer.graph is not model.graph:
            continue
        if flow.of(count) == "constant" and tensors.numbers(count) is None:
            found[count] = None
    return list(found)


def body_of(node: ir.Node, flow: Flow, tensors: Tensors) -> Body:
    """Enter the body of a Loop or Scan; raises UnknownCost when nobody knows how often it runs or how large its values are."""
    (graph,) = subgraphs(node).values()
    times, shapes = _loop(node, graph, flow, tensors) if node.op_type == "Loop" else _scan(node, tensors)
    tensors.enter(graph, shapes)
    carried = shapes[2:] if node.op_type == "Loop" else shapes[: len(node.inputs) - node.attributes.get_int("num_scan_inputs", 0)]
    ends = graph.outputs[1:] if node.op_type == "Loop" else graph.outputs
    for shape, end, result in zip(carried, ends, node.outputs, strict=False):
        if shape is None or shape not in {tensors.shape(end), tensors.shape(result)}:
            raise UnknownCost(f"'{end.name}' may change its shape from one iteration to the next")
    return Body(graph, times)


def _loop(node: ir.Node, body: ir.Graph, flow: Flow, tensors: Tensors) -> tuple[int, list[Shape | None]]:
    """Iterations, and shapes of the body's inputs: iteration, condition, carried values."""
    count, condition = (*node.inputs[:2], None, None)[:2]
    if not _runs_on(condition, body, tensors):
        raise UnknownCost("it stops on a condition, so the number of iterations is unknown")
    if count is None:
        raise UnknownCost("it has no number of iterations")
    numbers = tensors.numbers(count)
    if numbers is None:
        names = ", ".join(sorted(flow.inputs_of(count)))
        raise UnknownCost(f"the number of iterations depends on {names or 'sizes that nobody knows'}")
    carried = [None if value is None else tensors.shape(value) for value in node.inputs[2:]]
    return max(0, int(numbers.reshape(-1)[0])), [(), (), *carried]


def _runs_on(condition: ir.Value | None, body: ir.Graph, tensors: Tensors) -> bool:
    """Whether a Loop's condition is true from the start and stays so."""
    first = tensors.numbers(condition)
    if condition is not None and (first is None or not first.reshape(-1)[0]):
        return False
    goes_on: ir.Value | None = body.outputs[0]
    while goes_on is not None and goes_on is not body.inputs[1]:
        numbers = tensors.numbers(goes_on)
        if numbers is not None:
            return bool(numbers.reshape(-1)[0])
        producer = goes_on.producer()
        if producer is None or producer.op_type != "Identity":
            return False
        goes_on = producer.inputs[0]
    return True


def _scan(node: ir.Node, tensors: Tensors) -> tuple[int, list[Shape | None]]:
    """Iterations, and shapes of the body's inputs: carried values, slices."""
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    axes = node.attributes.get_ints("scan_input_axes", None) or [0] * scanned
    shapes = [None if value is None else tensors.shape(value) for value in node.inputs]
    times: int | None = None
    for number, axis in enumerate(axes, start=len(shapes) - scanned):
        shape = shapes[number]
        if shape is None:
            raise UnknownCost("the length of what it scans is unknown")
        times = shape[axis]
        shapes[number] = tuple(size for index, size in enumerate(shape) if index != axis % len(shape))
    if times is None:
        raise UnknownCost("it scans nothing")
    return times, shapes
