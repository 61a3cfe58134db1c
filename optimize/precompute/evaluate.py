"""Running part of a graph for every id there is."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from ...core.errors import InputError
from ...runtime.session import SessionSettings
from ..cost.shapes import tensor_proto
from ..fuse.dims import dims_of
from .per_id import PerId

_CHUNK_IDS = 4096


def table_of(model: ir.Model, part: PerId, value: ir.Value) -> np.ndarray:
    """`value`'s row for every id, [vocabulary, *axes of one id], computed by ONNX Runtime; raises InputError when it cannot run it."""
    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - onnxruntime takes a second

    proto = _model(model, part, value)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), session_options(SessionSettings()), providers=["CPUExecutionProvider"])
        shape = _chunk(part)
        count = int(np.prod(shape, dtype=np.int64))
        dtype = np.int32 if part.ids.dtype is ir.DataType.INT32 else np.int64
        rows = []
        for start in range(0, part.vocabulary, count):
            # The last chunk is filled up with the last id.
            ids = np.minimum(np.arange(start, start + count, dtype=dtype), part.vocabulary - 1)
            rows.append(np.asarray(session.run(None, {part.ids.name or "": ids.reshape(shape)})[0]).reshape(count, -1))
    except Exception as error:  # ONNX Runtime raises its own types, which share no public base class
        raise InputError(value.name or "", f"cannot be computed for all ids: {str(error).splitlines()[0][:200]}") from error
    dims = dims_of(value) or ()
    inner = [size for size in dims[len(dims) - part.rows[value].axes :] if isinstance(size, int)]
    return np.concatenate(rows)[: part.vocabulary].reshape(part.vocabulary, *inner)


def _model(model: ir.Model, part: PerId, value: ir.Value) -> onnx.ModelProto:
    nodes = part.way_to(value)
    constants = {one.name or "": one.const_value for node in nodes for one in node.inputs if one is not None and one.is_initializer()}
    kind = onnx.TensorProto.INT32 if part.ids.dtype is ir.DataType.INT32 else onnx.TensorProto.INT64
    rank = len(dims_of(part.ids) or ())
    weights = [tensor_proto(name, one) for name, one in constants.items() if one is not None]
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "rows",
        [onnx.helper.make_tensor_value_info(part.ids.name or "", kind, [None] * rank)],
        [onnx.helper.make_empty_tensor_value_info(value.name or "")],
        weights,
    )
    versions = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    return onnx.helper.make_model(graph, opset_imports=versions, ir_version=model.ir_version)


def _chunk(part: PerId) -> list[int]:
    """A shape of ids that the graph takes: sizes that it fixes, and for the first that varies as many as make a chunk."""
    dims = list(dims_of(part.ids) or ())
    free = [axis for axis, size in enumerate(dims) if not isinstance(size, int)]
    fixed = int(np.prod([size for size in dims if isinstance(size, int)], dtype=np.int64))
    wanted = max(1, min(_CHUNK_IDS, part.vocabulary) // max(fixed, 1))
    return [size if isinstance(size, int) else wanted if axis == free[0] else 1 for axis, size in enumerate(dims)]
