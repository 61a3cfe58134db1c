"""The first linear layer of a ranker reads embeddings side by side: what it makes of each can be looked up, and only has to be added."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from ..fuse.dims import dims_of, reshape_target
from ..fuse.edit import constant, insert, producer, replace
from ..fuse.linear import Linear, linear_of
from .per_id import PerId, per_ids

# A byte that is looked up and added takes as long as that many FLOPs of a matrix product: in tables that stay in a cache, and in larger
# ones (AVX-512, one thread, docs/recipes/precompute.md).
CACHED_BYTE_FLOPS, BYTE_FLOPS = 10, 16
CACHED_BYTES = 4 * 2**20
# A lookup and an addition are two nodes more, a microsecond each, shared by the candidates of a request: some forty of them here.
ADDED_NODES_FLOPS = 3000


class Budget(msgspec.Struct):
    """Bytes that new tables may still take; `refused` names what did not fit."""

    left: int
    refused: list[str]

    def takes(self, name: str, size: int) -> bool:
        """Whether a table of `size` bytes still fits."""
        if size <= self.left:
            self.left -= size
            return True
        self.refused.append(f"'{name}' needs {size / 2**20:.1f} MiB")
        return False


class _Columns(msgspec.Struct, frozen=True):
    """Columns `start` to `stop` of a layer's input, as they were before they were put side by side."""

    value: ir.Value
    start: int
    stop: int


def split_linears(model: ir.Model, budget: Budget) -> int:
    """`MatMul(Concat(a, b, x), W)` as `a @ W_a + b @ W_b + x @ W_x` where a and b depend on one id each, so that they can be looked up.

    Only where that is less work and the new tables fit `budget`, which is asked but not charged; returns how many layers were split.
    """
    parts = per_ids(model)
    changed = 0
    for node in list(model.graph):
        layer = linear_of(node, computed_bias=True)
        value = node.inputs[0] if layer is not None else None
        if layer is None or value is None or len(dims_of(value) or ()) != 2:
            continue
        columns = _columns(value, 0)
        groups = [_worth(columns, part, layer, budget) for part in parts] if len(columns) > 1 else []
        chosen = [group for group in groups if group]
        if chosen:
            _split(model, layer, columns, chosen)
            changed += 1
    return changed


def _columns(value: ir.Value, start: int) -> list[_Columns]:
    """What `value`, [rows, columns], is put together from; itself where it is not."""
    dims, source = dims_of(value) or (), value
    view = producer(value, "Reshape")
    if view is not None and view.inputs[0] is not None and len(dims_of(view.inputs[0]) or ()) == 3:
        source = view.inputs[0]
    shape = dims_of(source) or ()
    joined = producer(source, "Concat")
    width = dims[-1] if dims and isinstance(dims[-1], int) else 0
    whole = [_Columns(value, start, start + width)]
    if joined is None or not width or not shape:
        return whole
    inner = [dims_of(one) for one in joined.inputs]
    # [rows, 1, d] beside one another along either axis lie in memory as [rows, d] do.
    flat = all(one is not None and len(one) == len(shape) and one[1:-1] in {(), (1,)} for one in inner)
    if not flat or joined.attributes.get_int("axis", 0) % len(shape) == 0:
        return whole
    found: list[_Columns] = []
    for one, sizes in zip(joined.inputs, inner, strict=True):
        if one is None or sizes is None or not isinstance(sizes[-1], int):
            return whole
        found.extend(_columns(one, start) if len(sizes) == 2 else [_Columns(one, start, start + sizes[-1])])
        start += sizes[-1]
    return found


def _worth(columns: list[_Columns], part: PerId, layer: Linear, budget: Budget) -> list[_Columns]:
    """The columns that depend on the ids of `part` alone, where looking up what the layer makes of them is less work."""
    chosen = [one for one in columns if one.value in part.rows and part.rows[one.value].width == one.stop - one.start]
    width = sum(one.stop - one.start for one in chosen)
    saved = 2 * width * layer.outputs + sum(part.work(node) for node in {node for one in chosen for node in part.way_to(one.value)})
    more = layer.weight.itemsize * (layer.outputs - width)
    size = part.vocabulary * layer.outputs * layer.weight.itemsize
    price = CACHED_BYTE_FLOPS if size <= CACHED_BYTES else BYTE_FLOPS
    if not chosen or saved <= ADDED_NODES_FLOPS + price * max(0, more):
        return []
    if size > budget.left:
        budget.refused.append(f"{part.vocabulary} x {layer.outputs} for '{layer.node.name}' needs {size / 2**20:.1f} MiB")
        return []
    return chosen


def _split(model: ir.Model, layer: Linear, columns: list[_Columns], groups: list[list[_Columns]]) -> None:
    node = layer.node
    taken = {id(one) for group in groups for one in group}
    rest = [one for one in columns if id(one) not in taken]
    bias = layer.added if layer.bias is None else constant(model, layer.bias, f"{node.name}_bias")
    terms = [_product(model, layer, group) for group in groups]
    if rest:
        product = _product(model, layer, rest)
        # A Gemm adds the bias by itself.
        maker = product.producer()
        if bias is not None and maker is not None:
            product = replace(maker, "Gemm", [*maker.inputs, bias]).outputs[0]
        terms.append(product)
    elif bias is not None:
        terms[0] = insert(node, "Add", [terms[0], bias])
    total = terms[-1]
    for term in terms[-2:0:-1]:
        total = insert(node, "Add", [total, term])
    replace(node, *(("Add", [total, terms[0]]) if len(terms) > 1 else ("Identity", [total])))


def _product(model: ir.Model, layer: Linear, columns: list[_Columns]) -> ir.Value:
    """These columns, side by side, times their rows of the matrix."""
    values = [_flat(model, layer.node, one.value) for one in columns]
    joined = values[0] if len(values) == 1 else insert(layer.node, "Concat", values, {"axis": 1})
    weight = np.concatenate([layer.weight[one.start : one.stop] for one in columns])
    return insert(layer.node, "MatMul", [joined, constant(model, weight, f"{layer.node.name}_part")])


def _flat(model: ir.Model, before: ir.Node, value: ir.Value) -> ir.Value:
    dims = dims_of(value) or ()
    target = reshape_target((dims[0], dims[-1])) if len(dims) != 2 else None
    return value if target is None else insert(before, "Reshape", [value, constant(model, np.asarray(target, np.int64), "flat")])
