"""What an ONNX file declares, compared with what it holds, before anything is allocated or run for it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from ..core.errors import InputError, UntrustedError

# Above this many elements a constant's expansion is no model for a recommender but a way to fill the memory.
MOST_ELEMENTS = 2**31
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
_EXPORT_AGAIN = "export the model again"
_BITS: dict[int, int] = {
    **{TensorProto.FLOAT: 32, TensorProto.DOUBLE: 64, TensorProto.FLOAT16: 16, TensorProto.BFLOAT16: 16, TensorProto.BOOL: 8},
    **{TensorProto.INT8: 8, TensorProto.INT16: 16, TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.COMPLEX64: 64},
    **{TensorProto.UINT8: 8, TensorProto.UINT16: 16, TensorProto.UINT32: 32, TensorProto.UINT64: 64, TensorProto.COMPLEX128: 128},
    **{TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4, TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E5M2: 8},
    **{TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2FNUZ: 8},
}
# Where the elements are when they are not raw bytes: which field, and how many entries (or parts of one) an element takes.
_FIELDS: dict[int, tuple[str, float]] = {
    **{TensorProto.FLOAT: ("float_data", 1), TensorProto.COMPLEX64: ("float_data", 2), TensorProto.INT64: ("int64_data", 1)},
    **{TensorProto.DOUBLE: ("double_data", 1), TensorProto.COMPLEX128: ("double_data", 2), TensorProto.STRING: ("string_data", 1)},
    **{TensorProto.UINT32: ("uint64_data", 1), TensorProto.UINT64: ("uint64_data", 1)},
    **{TensorProto.INT4: ("int32_data", 0.5), TensorProto.UINT4: ("int32_data", 0.5), TensorProto.FLOAT4E2M1: ("int32_data", 0.5)},
}
# Operators whose result is as large as some input says: the position of that input.
_SIZED_BY = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Pad": 1, "OneHot": 1, "Resize": 3, "CenterCropPad": 1, "Upsample": 1}
_SIZED_BY |= {"HannWindow": 0, "HammingWindow": 0, "BlackmanWindow": 0, "DFT": 1}
# These would read other files or call what is registered in the process.
_NEVER = {"EPContext", "PythonOp", "ATen"}


def check_model(model: onnx.ModelProto, folder: Path, where: str) -> None:
    """Raise InputError where the model, in any subgraph, declares what it does not hold, names other files, or would fill the memory."""
    functions = {(function.domain, function.name) for function in model.functions}
    for graph in [model.graph, *(g for info in model.training_info for g in (info.initialization, info.algorithm))]:
        _check_graph(graph, {}, folder, functions, where)
    for function in model.functions:
        _check_nodes(function.node, {}, folder, functions, f"{where}: function '{function.name[:60]}'")


def _check_graph(
    graph: onnx.GraphProto, outer: Mapping[str, TensorProto], folder: Path, functions: set[tuple[str, str]], where: str
) -> None:
    constants = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    for tensor in graph.initializer:
        check_tensor(tensor, folder, f"{where}: initializer '{tensor.name[:60]}'")
    for sparse in graph.sparse_initializer:
        _check_sparse(sparse, folder, f"{where}: initializer '{sparse.values.name[:60]}'")
    _check_nodes(graph.node, constants, folder, functions, where)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto], outer: Mapping[str, TensorProto], folder: Path, functions: set[tuple[str, str]], where: str
) -> None:
    constants = dict(outer)
    for node in nodes:
        at = f"{where}: node '{(node.name or next(iter(node.output), ''))[:60]}' ({node.op_type[:40]})"
        if (node.domain, node.op_type) not in functions and (node.domain not in _DOMAINS or node.op_type in _NEVER):
            fix = "keep to the operators of ONNX (ai.onnx, ai.onnx.ml) and of ONNX Runtime (com.microsoft)"
            raise UntrustedError(at, f"is an operator of another library ('{node.domain[:60]}')", fix=fix)
        for attribute in node.attribute:
            for tensor in _tensors(attribute):
                check_tensor(tensor, folder, at)
            for sparse in [*attribute.sparse_tensors, *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else [])]:
                _check_sparse(sparse, folder, at)
            for graph in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                _check_graph(graph, constants, folder, functions, where)
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                constants[node.output[0]] = attribute.t
        elements = _elements_made(node, constants)
        if elements > MOST_ELEMENTS:
            fix = "check the constants it gets its size from"
            raise InputError.mismatch(at, expected=f"a result of at most {MOST_ELEMENTS:,} elements", found=f"{elements:,}", fix=fix)


def check_tensor(tensor: TensorProto, folder: Path, where: str) -> None:
    """Raise InputError where a tensor declares another size than it holds, here or in the file it names."""
    shape = f"a tensor of shape {list(tensor.dims)[:8]}"
    if any(dim < 0 for dim in tensor.dims) or (tensor.data_type not in _BITS and tensor.data_type != TensorProto.STRING):
        raise InputError(where, f"holds {shape} and the unknown type {tensor.data_type}", fix=_EXPORT_AGAIN)
    count = math.prod(tensor.dims)
    size = -(-count * _BITS.get(tensor.data_type, 0) // 8)
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        _check_external(tensor, size, folder, where)
        return
    field, each = _FIELDS.get(tensor.data_type, ("int32_data", 1))
    if tensor.HasField("raw_data"):
        expected, found, unit = size, len(tensor.raw_data), "bytes"
    else:
        expected, found, unit = math.ceil(count * each), len(getattr(tensor, field)), "values"
    if expected != found or tensor.HasField("segment"):
        raise InputError.mismatch(f"{where}: {shape}", expected=f"{expected:,} {unit}", found=f"{found:,}", fix=_EXPORT_AGAIN)


def _check_external(tensor: TensorProto, size: int, folder: Path, where: str) -> None:
    """The file a tensor names must lie beside the model, and hold what the tensor declares."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = folder / location if _is_plain(location) else None
    if file is None or not file.is_file() or file.resolve().parent != folder.resolve():
        problem = f"keeps its weights in '{location[:80]}', which is no file beside the model"
        raise UntrustedError(where, problem, fix="put both into one folder, without links")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    except ValueError:
        offset = length = -1
    held = file.stat().st_size
    if offset < 0 or length != size or offset + length > held:
        found = f"bytes {offset:,} to {offset + length:,} of a file of {held:,}"
        raise InputError.mismatch(f"{where}: '{location}'", expected=f"{size:,} bytes inside the file", found=found, fix=_EXPORT_AGAIN)


def _is_plain(location: str) -> bool:
    return location not in {"", ".", ".."} and not any(letter in location for letter in "/\\\0") and len(location) < 256


def _check_sparse(sparse: onnx.SparseTensorProto, folder: Path, where: str) -> None:
    for tensor in (sparse.values, sparse.indices):
        check_tensor(tensor, folder, where)
    elements = math.prod(max(dim, 0) for dim in sparse.dims)
    if elements > MOST_ELEMENTS:
        raise InputError.mismatch(where, expected=f"at most {MOST_ELEMENTS:,} elements", found=f"{elements:,}", fix=_EXPORT_AGAIN)


def _tensors(attribute: onnx.AttributeProto) -> Iterator[TensorProto]:
    yield from attribute.tensors
    if attribute.HasField("t"):
        yield attribute.t


def _elements_made(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> int:
    """The least number of elements of a node's result that constants tell, 0 where they tell nothing."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in {"RandomNormal", "RandomUniform"} and "shape" in attributes:
        return math.prod(abs(dim) for dim in attributes["shape"].ints)
    if node.op_type == "Range" and len(node.input) == 3:
        start, limit, step = (_values(constants.get(name)) for name in node.input)
        return abs(int((limit[0] - start[0]) / step[0])) if start and limit and step and step[0] else 0
    position = _SIZED_BY.get(node.op_type)
    if position is None or len(node.input) <= position:
        return 0
    sizes = [abs(int(value)) for value in _values(constants.get(node.input[position])) or ()]
    return sum(sizes) if node.op_type == "Pad" else math.prod(max(size, 1) for size in sizes)


def _values(tensor: TensorProto | None) -> list[float] | None:
    """The finite numbers of a small constant; None where it is no such thing."""
    if tensor is None or tensor.external_data or math.prod(tensor.dims) > 64 or tensor.data_type == TensorProto.STRING:
        return None
    found = onnx.numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)
    return found.tolist() if found.size and np.isfinite(found).all() else None
