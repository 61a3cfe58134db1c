"""Rewrites of a TorchScript graph that PyTorch's ONNX exporter needs; each keeps the meaning."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# PyTorch's graph types have no public names.
Graph = Any
Block = Any
Node = Any
Value = Any


def simplify(script: torch.jit.ScriptModule) -> None:
    """Rewrite the graph of `script` in place: one function without calls, and nothing the exporter has no rule for but needs none."""
    import torch  # noqa: PLC0415 - takes seconds

    graph = script.graph
    torch._C._jit_pass_inline(graph)
    for node in list(_nodes(graph)):
        if node.kind() == "prim::isinstance":
            _known_tensor(graph, node)
        elif node.kind() == "aten::cpu":
            node.output().replaceAllUsesWith(node.inputsAt(0))
    torch._C._jit_pass_constant_propagation(graph)
    torch._C._jit_pass_dce(graph)
    for node in list(_nodes(graph)):
        if node.kind() == "prim::unchecked_cast" and node.inputsAt(0).type().isSubtypeOf(node.output().type()):
            node.output().replaceAllUsesWith(node.inputsAt(0))
    torch._C._jit_pass_dce(graph)
    torch._C._jit_pass_lower_all_tuples(graph)
    if len(list(graph.outputs())) > 1:
        # A method returns one value.
        graph.makeMultiOutputIntoTuple()
    for node in list(_nodes(graph)):
        if node.kind() == "prim::DictConstruct":
            _without_dict(node)
        elif node.kind() == "aten::_pack_padded_sequence":
            _rows_of_packed(graph, node)
        elif node.kind() == "aten::__contains__":
            _spelled_out(graph, node)
    for pattern, replacement in _cells():
        torch._C._jit_pass_custom_pattern_based_rewrite_graph(pattern, replacement, graph)
    torch._C._jit_pass_dce(graph)


def _nodes(block: Block) -> Iterator[Node]:
    for node in list(block.nodes()):
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _without_dict(node: Node) -> None:
    """`{"a": x, "b": y}["a"]` as `x`."""
    parts = list(node.inputs())
    entries = {key.toIValue(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}
    for use in list(node.output().uses()):
        if use.user.kind() == "aten::__getitem__" and use.user.inputsAt(1).toIValue() in entries:
            use.user.output().replaceAllUsesWith(entries[use.user.inputsAt(1).toIValue()])


def _known_tensor(graph: Graph, node: Node) -> None:
    """`isinstance(x, Tensor)` of what is known to be one."""
    asked = {kind.kind() for kind in node.tys("types")}
    if asked == {"TensorType"} and node.inputsAt(0).type().kind() == "TensorType":
        node.output().replaceAllUsesWith(_constant(graph, node, True))


def _rows_of_packed(graph: Graph, node: Node) -> None:
    """`batch_sizes[0]`, which nn.GRU asks for its first state, is the number of rows; the exporter knows it from `lengths` only."""
    import torch  # noqa: PLC0415 - takes seconds

    lengths, sizes = node.inputsAt(1), list(node.outputs())[1]
    for use in list(sizes.uses()):
        if use.user.kind() != "aten::select" or use.user.inputsAt(2).toIValue() != 0:
            continue
        rows = graph.create("aten::size", [lengths, use.user.inputsAt(1)], 1)
        rows.insertBefore(use.user)
        rows.output().setType(torch._C.IntType.get())
        as_tensor = graph.create("prim::NumToTensor", [rows.output()], 1)
        as_tensor.insertBefore(use.user)
        use.user.output().replaceAllUsesWith(as_tensor.output())


def _spelled_out(graph: Graph, node: Node) -> None:
    """`x in (1, 2)` as `x == 1 or x == 2`."""
    values = node.inputsAt(0).toIValue()
    if not values or not all(type(value) is int for value in values):
        return
    found = None
    for value in values:
        equal = _boolean(graph, node, "aten::eq", node.inputsAt(1), _constant(graph, node, value))
        found = equal if found is None else _boolean(graph, node, "aten::__or__", found, equal)
    node.output().replaceAllUsesWith(found)


def _boolean(graph: Graph, before: Node, kind: str, *inputs: Value) -> Value:
    import torch  # noqa: PLC0415 - takes seconds

    node = graph.create(kind, list(inputs), 1)
    node.insertBefore(before)
    node.output().setType(torch._C.BoolType.get())
    return node.output()


def _constant(graph: Graph, before: Node, value: int) -> Value:
    import torch  # noqa: PLC0415 - takes seconds

    node = graph.create("prim::Constant", [], 1)
    node.i_("value", int(value))
    node.output().setType(torch._C.BoolType.get() if isinstance(value, bool) else torch._C.IntType.get())
    node.insertBefore(before)
    return node.output()


@cache
def _cells() -> tuple[tuple[str, str], ...]:
    """Recurrent cells, for which the exporter has no rule, in terms of what it knows: (pattern, replacement) as graphs in text."""
    import torch  # noqa: PLC0415 - takes seconds
    from torch import Tensor, sigmoid, tanh  # noqa: PLC0415
    from torch.nn.functional import linear  # noqa: PLC0415

    def gru(x: Tensor, h: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor | None, b: Tensor | None) -> Tensor:  # noqa: PLR0917 - PyTorch's arguments
        reset_in, update_in, new_in = linear(x, w_in, b_in).chunk(3, 1)
        reset, update, new = linear(h, w, b).chunk(3, 1)
        kept = sigmoid(update_in + update)
        state = tanh(new_in + sigmoid(reset_in + reset) * new)
        return state + kept * (h - state)

    def rnn(x: Tensor, h: Tensor, w_in: Tensor, w: Tensor, b_in: Tensor | None, b: Tensor | None) -> Tensor:  # noqa: PLR0917 - PyTorch's arguments
        return tanh(linear(x, w_in, b_in) + linear(h, w, b))

    names = "%x, %h, %w_in, %w, %b_in, %b"
    found = []
    for kind, function in {"gru_cell": gru, "rnn_tanh_cell": rnn}.items():
        graph = torch.jit.script(function).graph
        torch._C._jit_pass_inline(graph)
        replacement = re.sub(r"\s+#.*", "", str(graph))
        found.append((f"graph({names}):\n  %r : Tensor = aten::{kind}({names})\n  return (%r)", replacement))
    return tuple(found)
