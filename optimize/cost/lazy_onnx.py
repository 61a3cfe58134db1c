"""Reading an ONNX file without reading its weights: large tensors stay in the file until somebody asks for their numbers."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from ...core.errors import InputError

# Field numbers of onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_RAW_DATA = 9
_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
_LARGE_BYTES = 64 * 1024

Span = tuple[int, int]


def read_lazily(path: Path) -> ir.Model:
    """Read `path`; tensors above 64 KiB, embedded ones too, are mapped from their files and loaded when their numbers are asked for.

    Raises InputError when the file is damaged, no valid ONNX model, or points at weights outside its own folder.
    """
    where = str(path)
    try:
        proto = _without_weights(path)
        _check(proto, path)
        model = ir.from_proto(proto)
    except InputError:
        raise
    except Exception as error:  # protobuf, the checker and onnx_ir raise their own types, with no public base class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(where, f"is no valid ONNX model ({reason[:200]})", fix="export the model again") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _without_weights(path: Path) -> onnx.ModelProto:
    """The model with each large embedded tensor as external data that lies in the model's own file."""
    if path.stat().st_size == 0:
        raise InputError.mismatch(str(path), expected="an ONNX model", found="an empty file")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        parts, tensors = [], list[onnx.TensorProto]()
        for field, start, content in _fields(data, (0, len(data))):
            if field == _MODEL_GRAPH and content[1] - content[0] > _LARGE_BYTES:
                parts.append(_graph_field(data, content, path.name, tensors))
            else:
                parts.append(data[start : content[1]])
        proto = onnx.ModelProto()
        proto.ParseFromString(b"".join(parts))
    proto.graph.initializer.extend(tensors)
    return proto


def _graph_field(data: mmap.mmap, graph: Span, location: str, tensors: list[onnx.TensorProto]) -> bytes:
    """The field that holds the graph, without its large tensors, which are added to `tensors`."""
    parts = []
    for field, start, content in _fields(data, graph):
        if field == _GRAPH_INITIALIZER and content[1] - content[0] > _LARGE_BYTES:
            tensors.append(_tensor(data, content, location))
        else:
            parts.append(data[start : content[1]])
    body = b"".join(parts)
    return bytes([_MODEL_GRAPH << 3 | _LENGTH_DELIMITED]) + _varint(len(body)) + body


def _tensor(data: mmap.mmap, tensor: Span, location: str) -> onnx.TensorProto:
    raw: Span | None = None
    parts = []
    for field, start, content in _fields(data, tensor):
        if field == _TENSOR_RAW_DATA:
            raw = content
        else:
            parts.append(data[start : content[1]])
    proto = onnx.TensorProto()
    proto.ParseFromString(b"".join(parts))
    if raw is not None:
        proto.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", raw[0]), ("length", raw[1] - raw[0])):
            proto.external_data.add(key=key, value=str(value))
    return proto


def _fields(data: mmap.mmap, span: Span) -> Iterator[tuple[int, int, Span]]:
    """Fields of a protobuf message: number, where the field starts, where its content lies; ValueError when they do not fit `span`."""
    position, end = span
    while position < end:
        start = position
        key, position = _read_varint(data, position)
        kind = key & 7
        if kind == _LENGTH_DELIMITED:
            size, position = _read_varint(data, position)
        elif kind == 0:
            size = _read_varint(data, position)[1] - position
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError("not a protobuf message")
        if position + size > end:
            raise ValueError("the file is truncated")
        yield key >> 3, start, (position, position + size)
        position += size


def _read_varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """A variable-length integer, and where it ends."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("the file is truncated")
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _check(proto: onnx.ModelProto, path: Path) -> None:
    """onnx's checker on the model with external tensors as inputs, so that it reads none; and that they lie beside the model."""
    checked = onnx.ModelProto()
    checked.CopyFrom(proto)
    external = [tensor for tensor in proto.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    kept = [tensor for tensor in proto.graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    del checked.graph.initializer[:]
    checked.graph.initializer.extend(kept)
    known = {value.name for value in proto.graph.input}
    for tensor in external:
        if tensor.name not in known:
            checked.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    onnx.checker.check_model(checked)
    for tensor in external:
        _check_place(tensor, path)


def _check_place(tensor: onnx.TensorProto, path: Path) -> None:
    """Raise InputError unless an external tensor's bytes are there, in the model's folder."""
    where = f"{path}: weight '{tensor.name}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = path.parent / entries.get("location", "")
    if file != path and file.resolve().parent != path.parent.resolve():
        raise InputError.mismatch(where, expected="weights beside the model", found=entries.get("location", "nothing"))
    if not file.is_file():
        raise InputError.mismatch(where, expected=f"a file {file.name} beside the model", found="nothing", fix="copy both files")
    wanted = math.ceil(math.prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth / 8)
    offset = int(entries.get("offset") or 0)
    stored = min(int(entries.get("length") or wanted), file.stat().st_size - offset)
    if stored < wanted:
        raise InputError.mismatch(where, expected=f"{wanted} bytes in {file.name}", found=f"{stored}", fix="copy the file again")
