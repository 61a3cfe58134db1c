"""Linear layers over a mix of values: the parts that are the same for many rows are multiplied once.

`[user, item] W = user W_u + item W_i` (Kuaishou's MaRI does this for the first layer, arXiv:2602.23105). Target attention reads
`[q, h, q - h, q * h]` for every candidate q and every past item h: everything linear is multiplied per q and per h, and the product term
is one GEMM, `q (h * W_p)`, whose right side is the same for all candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import onnx_ir as ir

from ..fuse.edit import const
from .facts import WORLDS, Shape, broadcast, is_fixed, is_one, product, usual
from .linear import Layer, Term, all_ones, layer_of, leading, terms_of
from .rewriting import Rewriting


class _Group(msgspec.Struct, frozen=True):
    """Terms of a single factor whose rows are laid out alike."""

    lead: Shape
    terms: list[Term]


def split_product(node: ir.Node, work: Rewriting) -> bool:
    """Multiply apart what has fewer rows than the whole; where nothing has, nothing is done."""
    layer = layer_of(node)
    whole = work.shape(layer.read) if layer is not None else None
    if layer is None or whole is None or not all(work.shape(value) is not None for value in (layer.bias, layer.result) if value):
        return False
    terms = terms_of(layer, work)
    if terms is None or all(leading(_shape(term, work), len(whole)) == whole[:-1] and len(term.factors) == 1 for term in terms):
        return False
    singles = [term for term in terms if len(term.factors) == 1]
    pairs = [term for term in terms if len(term.factors) == 2]
    groups = _grouped(singles, len(whole), work)
    if not pairs and broadcast([leading(_shape(term, work), len(whole)) for term in singles]) != whole[:-1]:
        return False
    if pairs:
        made = _attention(layer, whole, groups, pairs, work)
        if made is None:
            return False
    else:
        made = _sum(layer, whole, groups, work)
    work.replace(layer.result, made)
    return True


def _shape(term: Term, work: Rewriting) -> Shape:
    shapes = [work.shape(factor) or () for factor in term.factors]
    return max(shapes, key=lambda shape: usual(product(shape)))


def _grouped(terms: Sequence[Term], rank: int, work: Rewriting) -> list[_Group]:
    """Groups by the layout of rows, the smallest first."""
    found: dict[Shape, list[Term]] = {}
    for term in terms:
        found.setdefault(leading(_shape(term, work), rank), []).append(term)
    return [_Group(lead, found[lead]) for lead in sorted(found, key=lambda lead: usual(product(lead)))]


def _joined(group: _Group, rank: int, work: Rewriting) -> tuple[ir.Value, np.ndarray]:
    """One value and one matrix for a group: its values side by side."""
    values = [_of_rank(term.factors[0], rank, work) for term in group.terms]
    value = values[0] if len(values) == 1 else work.emit("Concat", values, {"axis": -1})
    return value, np.concatenate([term.weight for term in group.terms])


def _of_rank(value: ir.Value, rank: int, work: Rewriting) -> ir.Value:
    missing = rank - len(work.shape(value) or ())
    return value if missing <= 0 else work.emit("Unsqueeze", [value, work.ints(*range(missing))])


def _sum(layer: Layer, whole: Shape, groups: Sequence[_Group], work: Rewriting) -> ir.Value:
    """Products of the groups, added from the smallest to the largest; the bias goes with the smallest."""
    total, lead = layer.bias, groups[0].lead if groups else ()
    for group in groups:
        lead = broadcast([lead, group.lead])
        value, weight = _joined(group, len(whole), work)
        matrix = work.constant(np.ascontiguousarray(weight), "weight")
        if len(whole) == 2 and (total is None or _fits_gemm(total, group, work)):
            total = work.emit("Gemm", [value, matrix] if total is None else [value, matrix, total])
        else:
            part = work.emit("MatMul", [value, matrix])
            total = part if total is None else work.emit("Add", [total, part])
        work.facts.learn(total, (*lead, (layer.weight.shape[1],) * WORLDS))
    if total is None:
        raise AssertionError("a layer has at least one term")
    return total


def _fits_gemm(total: ir.Value, group: _Group, work: Rewriting) -> bool:
    """A Gemm repeats what it adds along rows, never the product."""
    shape = work.shape(total)
    return shape is not None and (len(shape) < 2 or is_one(shape[0]) or shape[0] == group.lead[0])


def _attention(layer: Layer, whole: Shape, groups: Sequence[_Group], pairs: Sequence[Term], work: Rewriting) -> ir.Value | None:
    """`sum of (q * h) W` as one GEMM `q (h * W)`, linear terms of q in its matrix and those of h in what it adds."""
    query, keys = pairs[0].factors[0], [term.factors[1] for term in pairs]
    if len(whole) != 3 or any(term.factors[0] is not query for term in pairs):
        return None
    of_query, of_key = leading(work.shape(query) or (), 3), leading(work.shape(keys[0]) or (), 3)
    if not (is_one(of_query[1]) and is_one(of_key[0]) and not is_one(of_query[0])):
        return None
    if any(leading(work.shape(key) or (), 3) != of_key for key in keys) or not is_fixed(whole[-1]):
        return None
    inputs, outputs = pairs[0].weight.shape
    own = sum((term.weight for group in groups for term in group.terms if term.factors[0] is query), np.zeros_like(pairs[0].weight))
    if own.shape != (inputs, outputs):
        return None
    matrix = _query_matrix(pairs, own, work)
    rest = [_Group(g.lead, [t for t in g.terms if t.factors[0] is not query]) for g in groups]
    rest = [group for group in rest if group.terms]
    inside = [group for group in rest if group.lead == of_key or all_ones(group.lead)]
    outside = [group for group in rest if group not in inside]
    added = _sum(layer, whole, inside, work) if inside else layer.bias
    flat = work.emit("Reshape", [query, work.ints(-1, inputs)])
    result = work.emit("Gemm", [flat, work.emit("Reshape", [matrix, work.ints(inputs, -1)]), *_flattened(added, of_key, keys[0], work)])
    past = work.ints(of_key[1][0]) if is_fixed(of_key[1]) else _size(keys[0], -2, work)
    target = work.vector([work.ints(-1), past, work.ints(outputs)])
    full = work.emit("Reshape", [result, target])
    for group in outside:
        value, weight = _joined(group, 3, work)
        full = work.emit("Add", [full, work.emit("MatMul", [value, work.constant(np.ascontiguousarray(weight), "weight")])])
    return full


def _query_matrix(pairs: Sequence[Term], own: np.ndarray, work: Rewriting) -> ir.Value:
    """[k, past, n]: the sum over pairs of key[past, k] W[k, n], plus the query's own matrix for every past item."""
    inputs, outputs = own.shape
    total: ir.Value | None = work.constant(np.ascontiguousarray(own[:, None, :]), "weight") if own.any() else None
    for term in pairs:
        key = term.factors[1]
        flat = work.emit("Reshape", [key, work.ints(-1, inputs)])
        turned = work.emit("Unsqueeze", [work.emit("Transpose", [flat], {"perm": [1, 0]}), work.ints(2)])
        part = work.emit("Mul", [turned, work.constant(np.ascontiguousarray(term.weight.reshape(inputs, 1, outputs)), "weight")])
        total = part if total is None else work.emit("Add", [part, total])
    if total is None:
        raise AssertionError("there is at least one pair")
    return total


def _flattened(added: ir.Value | None, of_key: Shape, key: ir.Value, work: Rewriting) -> list[ir.Value]:
    """What is added to every candidate's row, [1, past * n]: a vector that is the same for every past item is repeated."""
    if added is None:
        return []
    shape = work.shape(added)
    if shape is None:
        raise AssertionError("sums have shapes")
    if len(shape) < 2 or is_one(shape[-2]):
        past = work.ints(of_key[1][0]) if is_fixed(of_key[1]) else _size(key, -2, work)
        array = const(added)
        lifted = work.constant(array.reshape(1, -1), "bias") if array is not None else work.emit("Reshape", [added, work.ints(1, -1)])
        added = work.emit("Tile", [lifted, work.vector([work.ints(1), past])])
        return [added]
    return [work.emit("Reshape", [added, work.ints(1, -1)])]


def _size(value: ir.Value, axis: int, work: Rewriting) -> ir.Value:
    rank = len(work.shape(value) or ())
    return work.emit("Shape", [value], {"start": rank + axis, "end": rank + axis + 1})
