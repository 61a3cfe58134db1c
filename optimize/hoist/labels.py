"""The labels of every operator that is known (see `label`)."""

from __future__ import annotations

import onnx_ir as ir

from .label import LabelRule, Labels
from .label_arithmetic import ARITHMETIC
from .label_layout import LAYOUT
from .rewriting import Rewriting

LABELLED: dict[str, LabelRule] = {**ARITHMETIC, **LAYOUT}


def labels_of(node: ir.Node, work: Rewriting) -> Labels | None:
    """The labels of a node of the default domain; None for one that nothing is known of, or whose axes are not constants."""
    rule = LABELLED.get(node.op_type)
    return rule(node, work) if rule is not None else None
