"""nn.EmbeddingBag without a loop: torch.onnx turns a bag per row into an ONNX Loop, which runs the bags one after another."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.node import Argument

SUM, MEAN, MAX = 0, 1, 2
MODES = ("sum", "mean", "max")


class Notes(msgspec.Struct, frozen=True, kw_only=True):
    """What a rewriting did and what it left, each a short sentence that names the node."""

    done: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Bag(msgspec.Struct, frozen=True, kw_only=True):
    """One call: `weight [table, dim]`, `indices [n]`, `offsets [bags]` (`[bags + 1]` with `last_offset`), `scales [n]` or None.

    `padding` is the index that takes no part, None without one. Tensors are nodes of the graph.
    """

    weight: Any
    indices: Any
    offsets: Any
    scales: Any
    mode: int
    padding: int | None
    last_offset: bool


def rewrite_program(program: torch.export.ExportedProgram) -> tuple[torch.export.ExportedProgram, Notes]:
    """`program` with every EmbeddingBag as plain tensor operations, equal up to rounding; the program itself where it has none.

    Bags of a matrix `[rows, length]` become a lookup and a reduction over `length`; bags given by offsets become a lookup and a scatter.
    A bag whose auxiliary outputs are used stays, with a warning.
    """
    from torch.export import ExportedProgram  # noqa: PLC0415 - torch takes seconds

    if not any(_is_bag(node) for node in program.graph.nodes):
        return program, Notes()
    graph = copy.deepcopy(program.graph)  # nodes only: the weights stay where they are
    signature = copy.deepcopy(program.graph_signature)
    graph.eliminate_dead_code()
    done, warnings = [], []
    for node in [node for node in graph.nodes if _is_bag(node)]:
        result = _only_result(node)
        if result is None:
            warnings.append(f"EmbeddingBag '{node.name}' stays a Loop, one step per bag: more than its first output is used")
            continue
        bag = _bag(node)
        matrix = _matrix(bag)
        with graph.inserting_before(node):
            build = _Builder(graph, bag.weight.meta["val"].fake_mode)
            value = _reduce_matrix(build, bag, *matrix) if matrix else _reduce_segments(build, bag)
        result.replace_all_uses_with(value)
        signature.replace_all_uses(result.name, value.name)
        form = "a lookup and a reduction" if matrix else "a lookup and a scatter over its offsets"
        done.append(f"EmbeddingBag '{node.name}' ({MODES[bag.mode]}) written as {form}")
    graph.eliminate_dead_code()
    graph.lint()
    rewritten = ExportedProgram(
        root=program.graph_module,
        graph=graph,
        graph_signature=signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
    )
    return rewritten, Notes(done=tuple(done), warnings=tuple(warnings))


def _is_bag(node: torch.fx.Node) -> bool:
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    return node.op == "call_function" and node.target in (
        aten.embedding_bag.default,
        aten.embedding_bag.padding_idx,
        aten._embedding_bag.default,
        aten._embedding_bag_forward_only.default,
    )


def _only_result(node: torch.fx.Node) -> torch.fx.Node | None:
    """The node that takes the first of the four outputs; None when another is used."""
    used = list(node.users)
    return used[0] if len(used) == 1 and used[0].target is operator.getitem and used[0].args[1] == 0 else None


def _bag(node: torch.fx.Node) -> Bag:
    target: Any = node.target
    names = [argument.name for argument in target._schema.arguments]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    padding: Any = given.get("padding_idx")
    # The private operators say "no padding" with -1, the public one with None.
    if padding is not None and padding < 0:
        padding = None if "_embedding_bag" in str(target) else padding + int(given["weight"].meta["val"].shape[0])
    return Bag(
        weight=given["weight"],
        indices=given["indices"],
        offsets=given["offsets"],
        scales=given.get("per_sample_weights"),
        mode=int(given.get("mode", SUM)),
        padding=padding,
        last_offset=bool(given.get("include_last_offset", False)),
    )


def _matrix(bag: Bag) -> tuple[torch.fx.Node, torch.fx.Node | None] | None:
    """Indices `[rows, length]` and scales `[rows, length]` (or None) when every bag is a whole row of a matrix; None otherwise."""
    import torch  # noqa: PLC0415 - takes seconds
    from torch.fx.experimental.symbolic_shapes import statically_known_true as surely  # noqa: PLC0415

    if bag.last_offset or bag.offsets.target is not torch.ops.aten.arange.start_step or len(bag.offsets.args) != 3:
        return None
    indices = _before_flattening(bag.indices)
    scales = None if bag.scales is None else _before_flattening(bag.scales)
    if indices is None or (bag.scales is not None and scales is None):
        return None
    start, end, step = (getattr(argument, "meta", {}).get("val", argument) for argument in bag.offsets.args)
    rows, length = indices.meta["val"].shape
    regular = start == 0 and surely(step == length) and surely(end == rows * length)
    same = scales is None or all(surely(a == b) for a, b in zip(scales.meta["val"].shape, (rows, length), strict=True))
    return (indices, scales) if regular and same else None


def _before_flattening(node: torch.fx.Node) -> torch.fx.Node | None:
    """The matrix that `node` is the rows of, one after another; None when it is something else."""
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    flatten = (aten.reshape.default, aten.view.default, aten.flatten.using_ints, aten._unsafe_view.default)
    if node.op != "call_function" or node.target not in flatten:
        return None
    matrix: Any = node.args[0]
    return matrix if matrix.meta["val"].ndim == 2 and node.meta["val"].ndim == 1 else None


class _Builder:
    """Adds operators to a graph at its insertion point, each with the value that later passes ask for (`meta["val"]`)."""

    def __init__(self, graph: torch.fx.Graph, mode: FakeTensorMode) -> None:
        self._graph = graph
        self._mode = mode

    def __call__(self, target: Callable[..., object], *args: Argument, **kwargs: Argument) -> torch.fx.Node:
        from torch.fx.node import map_arg  # noqa: PLC0415 - torch takes seconds

        node = self._graph.call_function(target, args, kwargs)
        with self._mode:
            node.meta["val"] = target(*map_arg(args, lambda argument: argument.meta["val"]), **kwargs)
        return node


def _reduce_matrix(build: _Builder, bag: Bag, indices: torch.fx.Node, scales: torch.fx.Node | None) -> torch.fx.Node:
    """`[rows, dim]` from indices and scales `[rows, length]`."""
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    vectors = build(aten.embedding.default, bag.weight, indices)  # [rows, length, dim]
    if scales is not None:
        vectors = build(aten.mul.Tensor, vectors, build(aten.unsqueeze.default, scales, -1))
    if bag.padding is None:
        whole = {SUM: aten.sum.dim_IntList, MEAN: aten.mean.dim, MAX: aten.amax.default}
        return build(whole[bag.mode], vectors, [1])
    padded = build(aten.eq.Scalar, indices, bag.padding)
    fill = float("-inf") if bag.mode == MAX else 0.0
    vectors = build(aten.masked_fill.Scalar, vectors, build(aten.unsqueeze.default, padded, -1), fill)
    if bag.mode == SUM:
        return build(aten.sum.dim_IntList, vectors, [1])
    kept = build(aten.sum.dim_IntList, build(aten.bitwise_not.default, padded), [1], True)  # [rows, 1]
    if bag.mode == MAX:
        empty = build(aten.eq.Scalar, kept, 0)
        return build(aten.masked_fill.Scalar, build(aten.amax.default, vectors, [1]), empty, 0.0)
    return _divided(build, build(aten.sum.dim_IntList, vectors, [1]), kept, bag)


def _reduce_segments(build: _Builder, bag: Bag) -> torch.fx.Node:
    """`[bags, dim]` from indices `[n]` and offsets `[bags]`: a scatter by the number of the bag that each index belongs to."""
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    segments = build(aten.sym_size.int, bag.offsets, 0)  # with last_offset, one for what lies behind the last bag
    width = build(aten.sym_size.int, bag.weight, 1)
    device = bag.weight.meta["val"].device
    number = _bag_numbers(build, bag)
    vectors = build(aten.embedding.default, bag.weight, bag.indices)  # [n, dim]
    if bag.scales is not None:
        vectors = build(aten.mul.Tensor, vectors, build(aten.unsqueeze.default, bag.scales, -1))
    kept = build(aten.ones_like.default, number)
    if bag.padding is not None:
        padded = build(aten.eq.Scalar, bag.indices, bag.padding)
        kept = build(aten.masked_fill.Scalar, kept, padded, 0)
        fill = float("-inf") if bag.mode == MAX else 0.0
        vectors = build(aten.masked_fill.Scalar, vectors, build(aten.unsqueeze.default, padded, -1), fill)
    target = build(aten.expand.default, build(aten.unsqueeze.default, number, -1), [-1, width])
    start = float("-inf") if bag.mode == MAX else 0.0
    empty = build(aten.full.default, [segments, width], start, dtype=bag.weight.meta["val"].dtype, device=device)
    if bag.mode == MAX:
        found = build(aten.scatter_reduce.two, empty, 0, target, vectors, "amax")
    else:
        found = build(aten.scatter_add.default, empty, 0, target, vectors)
    if bag.mode != SUM:
        none = build(aten.full.default, [segments], 0, dtype=torch.int64, device=device)
        count = build(aten.unsqueeze.default, build(aten.scatter_add.default, none, 0, number, kept), -1)
        if bag.mode == MAX:
            found = build(aten.masked_fill.Scalar, found, build(aten.eq.Scalar, count, 0), 0.0)
        else:
            found = _divided(build, found, count, bag)
    return build(aten.slice.Tensor, found, 0, 0, -1) if bag.last_offset else found


def _bag_numbers(build: _Builder, bag: Bag) -> torch.fx.Node:
    """int64 `[n]`: how many offsets lie at or before each position, less one, which steps over empty bags."""
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    count = build(aten.sym_size.int, bag.indices, 0)
    behind = build(operator.add, count, 1)  # offsets of empty bags at the end point there
    offsets = build(aten._to_copy.default, bag.offsets, dtype=torch.int64)
    none = build(aten.full.default, [behind], 0, dtype=torch.int64, device=bag.offsets.meta["val"].device)
    starts = build(aten.scatter_add.default, none, 0, offsets, build(aten.ones_like.default, offsets))
    begun = build(aten.slice.Tensor, build(aten.cumsum.default, starts, 0), 0, 0, -1)
    return build(aten.sub.Tensor, begun, 1)


def _divided(build: _Builder, sums: torch.fx.Node, count: torch.fx.Node, bag: Bag) -> torch.fx.Node:
    """Means: sums over counts; a bag without a member stays 0."""
    import torch  # noqa: PLC0415 - takes seconds

    aten = torch.ops.aten
    divisor = build(aten._to_copy.default, build(aten.clamp.default, count, 1), dtype=bag.weight.meta["val"].dtype)
    return build(aten.div.Tensor, sums, divisor)
