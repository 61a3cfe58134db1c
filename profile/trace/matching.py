"""Which node of one model is which of the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

import msgspec

from .nodes import Node

Matched = Literal["", "name", "shape", "order"]
# Names that a tool made from an operator and a count (`MatMul_3`, `node_linear_2`, `aten::addmm #1`): an inserted node shifts them all.
_COUNTED = re.compile(r"(node_)?[\w:.]*?[_ #]+\d+")


class Pair(msgspec.Struct, frozen=True):
    """Positions of one node in both models, None where it is missing, and how it was matched."""

    control: int | None
    treatment: int | None
    matched: Matched


def match_nodes(control: Sequence[Node], treatment: Sequence[Node]) -> tuple[Pair, ...]:
    """Every node of both models once.

    First by name, with equal output shapes and constants; then by a name that somebody gave; then by operator, shapes and constants; and
    what is left by operator and order.
    """
    left, right = list(range(len(control))), list(range(len(treatment)))
    pairs: list[Pair] = []
    keys: tuple[tuple[Matched, Callable[[Node], Hashable]], ...] = (
        ("name", lambda n: (n.name, n.op, n.shapes, n.parameter_bytes)),
        ("name", lambda n: None if _COUNTED.fullmatch(n.name) else (n.name, n.op)),
        ("shape", lambda n: (n.op, n.shapes, n.parameter_bytes)),
        ("order", lambda n: n.op),
    )
    for how, key in keys:
        waiting: dict[Hashable, list[int]] = {}
        for j in right:
            waiting.setdefault(key(treatment[j]), []).append(j)
        for i in list(left):
            wanted = key(control[i])
            if wanted is not None and waiting.get(wanted):
                j = waiting[wanted].pop(0)
                left.remove(i)
                right.remove(j)
                pairs.append(Pair(i, j, how))
    gone = [Pair(i, None, "") for i in left]
    new = [Pair(None, j, "") for j in right]
    return (*sorted(pairs, key=lambda p: p.control or 0), *gone, *new)
