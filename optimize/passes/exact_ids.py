"""Keeping what becomes an id or a mask out of half precision, where 2049 is 2048.

Float inputs may carry ids, alone or between other numbers. The nodes between such an input and the integer or truth value made of it are
cut out of the graph before it is converted, their results standing in as inputs, and put back as they were.
"""

from __future__ import annotations

import msgspec
import onnx
from onnx import TensorProto

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE}
_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.INT16, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL}
# What is decided behind these is decided by activations, which are converted.
_LEARNED = frozenset({"MatMul", "Gemm", "Conv", "GRU", "LSTM", "RNN", "Attention"})
_TESTS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"})


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out: nodes in order, the constants they read, and the names that their results have in the graph."""

    nodes: list[onnx.NodeProto]
    constants: list[onnx.TensorProto]
    results: list[str]


def cut_ids(model: onnx.ModelProto) -> Cut:
    """Take out of `model` everything that makes integers or truth values of float inputs; their results become inputs."""
    graph = model.graph
    given = {tensor.name for tensor in graph.initializer}
    reached = {value.name for value in graph.input if value.type.tensor_type.elem_type in _FLOATS and value.name not in given}
    results: dict[str, int] = {}
    for node in graph.node:
        if not reached.intersection(node.input):
            continue
        kind = _result(node)
        if kind is not None and not any(output.name == node.output[0] for output in graph.output):
            results[node.output[0]] = kind
        elif kind is None and node.op_type not in _LEARNED:
            reached.update(node.output)
    needed, nodes = set(results), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    nodes.reverse()
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    constants = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in needed]
    kept = [node for node in graph.node if node.output[0] not in results]
    del graph.node[:]
    graph.node.extend(_used(kept, {output.name for output in graph.output}))
    graph.input.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in results.items())
    return Cut(nodes=copies, constants=constants, results=list(results))


def stitch_ids(model: onnx.ModelProto, cut: Cut) -> None:
    """Put what `cut_ids` took out back in front of the graph; only its results keep their names."""
    graph = model.graph
    inputs = [value for value in graph.input if value.name not in cut.results]
    del graph.input[:]
    graph.input.extend(inputs)
    outside = {value.name for value in inputs} | set(cut.results) | {""}
    for tensor in cut.constants:
        tensor.name = f"{tensor.name}_exact"
    for node in cut.nodes:
        node.name = f"{node.name}_exact"
        for names in (node.input, node.output):
            names[:] = [name if name in outside else f"{name}_exact" for name in names]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*cut.nodes, *_used(rest, {output.name for output in graph.output})])
    graph.initializer.extend(cut.constants)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    unused = [tensor for tensor in graph.initializer if tensor.name not in read and not _has_subgraphs(graph)]
    for tensor in unused:
        graph.initializer.remove(tensor)


def _result(node: onnx.NodeProto) -> int | None:
    """The type of what a node makes of floats when that is not a float."""
    if node.op_type == "Cast":
        to = int(next(attribute.i for attribute in node.attribute if attribute.name == "to"))
        return to if to in _INTEGERS else None
    return int(TensorProto.BOOL) if node.op_type in _TESTS else None


def _used(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that some output depends on, in the order given, which need not be that of the computation."""
    writer = {name: position for position, node in enumerate(nodes) for name in node.output}
    kept: set[int] = set()
    waiting = list(outputs)
    while waiting:
        position = writer.get(waiting.pop())
        if position is None or position in kept:
            continue
        kept.add(position)
        waiting.extend(nodes[position].input)
        for attribute in nodes[position].attribute:
            if attribute.HasField("g"):
                waiting.extend(name for inner in attribute.g.node for name in inner.input)
                waiting.extend(output.name for output in attribute.g.output)
    return [node for position, node in enumerate(nodes) if position in kept]


def _has_subgraphs(graph: onnx.GraphProto) -> bool:
    return any(attribute.HasField("g") for node in graph.node for attribute in node.attribute)
