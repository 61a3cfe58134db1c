"""How much work a request is before and after a step."""

from __future__ import annotations

import msgspec
import onnx_ir as ir

from ...core.signature import Signature
from ..cost.cost import cost_of


class Work(msgspec.Struct, frozen=True):
    """FLOPs of one request of the usual size (256 candidates), at the rows each node really has."""

    flops: int
    by_output: dict[str, int]

    def since(self, before: Work) -> dict[str, float]:
        """What a step's record says about it."""
        return {"flops_before": float(before.flops), "flops_after": float(self.flops)}


def work_of(model: ir.Model, signature: Signature) -> Work:
    """The work of `model`, which is not changed."""
    cost = cost_of(model, signature)
    names = {node.name or "": value.name for node in model.graph for value in node.outputs[:1]}
    found = {str(names[node.name]): node.flops for node in cost.nodes if node.flops is not None and node.name in names}
    return Work(flops=cost.flops.total, by_output=found)
