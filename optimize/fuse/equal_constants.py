"""Equal constants are stored once: tables that were copied, weights that two parts of a model share."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def share_constants(model: ir.Model) -> int:
    """Let every reader of a constant read the first one of the same bytes, dtype and shape; returns how many constants went."""
    first: dict[tuple[object, ...], ir.Value] = {}
    gone = 0
    for name, value in list(model.graph.initializers.items()):
        content = value.const_value
        if content is None or value.is_graph_output() or value.is_graph_input() or content.dtype is ir.DataType.STRING:
            continue
        # Equal by SHA-256, so that no two tables have to be in memory at once.
        key = (content.dtype, tuple(content.shape.numpy()), hashlib.sha256(content.tobytes()).digest())
        kept = first.setdefault(key, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            model.graph.initializers.pop(name)
            gone += 1
    return gone
