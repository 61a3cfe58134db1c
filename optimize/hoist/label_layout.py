"""Labels of operations that move, choose and join numbers (ONNX operator specification)."""

from __future__ import annotations

import onnx_ir as ir

from ..fuse.edit import const
from .label import Label, LabelRule, Labels, axes_of, rank_of, ranks_of, same_axes_but
from .rewriting import Rewriting


def _gather(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks = ranks_of(work, node.inputs)
    if ranks is None:
        return None
    axis = node.attributes.get_int("axis", 0) % ranks[0]
    data: list[Label] = [f"d{number}" for number in range(ranks[0])]
    index: tuple[Label, ...] = tuple(f"i{number}" for number in range(ranks[1]))
    out = (*data[:axis], *index, *data[axis + 1 :])
    data[axis] = None
    return Labels((tuple(data), index), (out,))


def _gather_elements(node: ir.Node, work: Rewriting) -> Labels | None:
    return same_axes_but(node, work, {node.attributes.get_int("axis", 0)}, inputs=2)


def _gather_nd(node: ir.Node, work: Rewriting) -> Labels | None:
    ranks, out = ranks_of(work, node.inputs), rank_of(work, node.outputs[0])
    if ranks is None or out is None or node.attributes.get_int("batch_dims", 0) != 0:
        return None
    index: tuple[Label, ...] = tuple(range(ranks[1] - 1))
    return Labels(((None,) * ranks[0], (*index, None)), ((*index, *(None,) * (out - len(index))),))


def _scatter_elements(node: ir.Node, work: Rewriting) -> Labels | None:
    return same_axes_but(node, work, {node.attributes.get_int("axis", 0)}, inputs=3)


def _along(default: int) -> LabelRule:
    def rule(node: ir.Node, work: Rewriting) -> Labels | None:
        return same_axes_but(node, work, {node.attributes.get_int("axis", default)})

    return rule


def _joined(node: ir.Node, work: Rewriting) -> Labels | None:
    """All inputs have the axes of the first, all but the joined one of equal size."""
    rank = rank_of(work, node.inputs[0])
    if rank is None:
        return None
    axis = node.attributes.get_int("axis", 0) % rank
    labels: tuple[Label, ...] = tuple(None if number == axis else number for number in range(rank))
    return Labels(tuple(labels for _ in node.inputs), (labels,))


def _cumsum(node: ir.Node, work: Rewriting) -> Labels | None:
    axis = const(node.inputs[1])
    return None if axis is None else same_axes_but(node, work, {int(axis.reshape(-1)[0])})


def _slice(node: ir.Node, work: Rewriting) -> Labels | None:
    starts = work.shape(node.inputs[1])
    given = const(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    if given is None:
        if starts is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
            return None
        return same_axes_but(node, work, set(range(starts[0][0])))
    return same_axes_but(node, work, {int(axis) for axis in given.reshape(-1)})


def _pad(node: ir.Node, work: Rewriting) -> Labels | None:
    rank, pads = rank_of(work, node.inputs[0]), const(node.inputs[1])
    if rank is None or pads is None or pads.size != 2 * rank:
        return None
    return same_axes_but(node, work, {axis for axis in range(rank) if pads[axis] or pads[axis + rank]})


def _transpose(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = rank_of(work, node.inputs[0])
    if rank is None:
        return None
    order = node.attributes.get_ints("perm", None) or tuple(reversed(range(rank)))
    return Labels((tuple(range(rank)),), (tuple(order),))


def _squeeze(node: ir.Node, work: Rewriting) -> Labels | None:
    shape, axes = work.shape(node.inputs[0]), axes_of(node)
    if shape is None or not axes:
        return None
    gone = {axis % len(shape) for axis in axes}
    # An axis that is dropped has size 1 and is nobody's copy.
    labels: tuple[Label, ...] = tuple(None if axis in gone else axis for axis in range(len(shape)))
    return Labels((labels, *(() for _ in node.inputs[1:])), (tuple(axis for axis in labels if axis is not None),))


def _unsqueeze(node: ir.Node, work: Rewriting) -> Labels | None:
    out, axes = rank_of(work, node.outputs[0]), axes_of(node)
    if out is None or not axes:
        return None
    new = {axis % out for axis in axes}
    left = iter(range(out))
    labels: tuple[Label, ...] = tuple(None if axis in new else next(left) for axis in range(out))
    return Labels((tuple(axis for axis in labels if axis is not None), *(() for _ in node.inputs[1:])), (labels,))


def _one_hot(node: ir.Node, work: Rewriting) -> Labels | None:
    out = rank_of(work, node.outputs[0])
    if out is None:
        return None
    axis = node.attributes.get_int("axis", -1) % out
    labels: tuple[Label, ...] = tuple(range(out - 1))
    return Labels((labels, (), ()), ((*labels[:axis], None, *labels[axis:]),))


def _trilu(node: ir.Node, work: Rewriting) -> Labels | None:
    return same_axes_but(node, work, {-1, -2})


def _arg(node: ir.Node, work: Rewriting) -> Labels | None:
    rank = rank_of(work, node.inputs[0])
    if rank is None:
        return None
    axis = node.attributes.get_int("axis", 0) % rank
    labels: tuple[Label, ...] = tuple(None if number == axis else number for number in range(rank))
    out = labels if node.attributes.get_int("keepdims", 1) else (*labels[:axis], *labels[axis + 1 :])
    return Labels((labels,), (out,))


LAYOUT: dict[str, LabelRule] = {
    **dict.fromkeys(("Split",), _along(0)),
    **dict.fromkeys(("TopK", "LpNormalization"), _along(-1)),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "Concat": _joined,
    "CumSum": _cumsum,
    "Slice": _slice,
    "Trilu": _trilu,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "OneHot": _one_hot,
    "Pad": _pad,
}
