"""The Open Inference Protocol v2 on the wire: JSON, and the binary tensor extension.

See https://github.com/kserve/open-inference-protocol (inference_rest.md) and Triton's `extension_binary_data.md`: with the header
`Inference-Header-Content-Length` the body is that many bytes of JSON followed by the raw little-endian tensors, in input order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from ..core.errors import InputError, UnknownName

HEADER_LENGTH = "inference-header-content-length"
# What decoding JSON raises: not JSON or not of the type; not UTF-8 or a number of thousands of digits; nested too deeply.
UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
DATATYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {dtype: name for name, dtype in DATATYPES.items()}

Parameters = dict[str, str | int | float | bool]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class TensorIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input: `data` (flat or nested) in JSON, or `binary_data_size` among its parameters."""

    name: str
    shape: tuple[Size, ...]
    datatype: str
    parameters: Parameters = {}
    data: list[object] | None = None


class OutputRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An output the client wants, in JSON or (`binary_data`) raw."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An inference request as it arrives."""

    inputs: tuple[TensorIn, ...]
    id: str = ""
    parameters: Parameters = {}
    outputs: tuple[OutputRequest, ...] = ()


class TensorOut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One output in a response."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: Parameters = {}
    data: list[object] | None = None


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An inference response."""

    model_name: str
    model_version: str
    id: str
    parameters: Parameters
    outputs: tuple[TensorOut, ...]


def datatype_of(dtype: str, *, where: str = "tensor") -> str:
    """The protocol's name for a numpy dtype, `float32` -> `FP32`; raises InputError for a dtype it has no name for."""
    if dtype not in _NAMES:
        raise InputError.mismatch(where, expected=f"one of {', '.join(_NAMES)}", found=dtype, fix="cast it before exporting the model")
    return _NAMES[dtype]


def decode_request(body: bytes, header_length: str | None) -> tuple[InferRequest, dict[str, np.ndarray]]:
    """The request and its input tensors by name; raises InputError for anything that is not a well-formed request."""
    split = _json_length(body, header_length)
    try:
        request = msgspec.json.decode(memoryview(body)[:split], type=InferRequest)
    except UNREADABLE as error:
        fix = "send a binary request with the header Inference-Header-Content-Length" if header_length is None and body[-1:] != b"}" else ""
        raise InputError("request body", str(error), fix=fix) from None
    tensors: dict[str, np.ndarray] = {}
    offset = split
    for spec in request.inputs:
        at = f"input '{spec.name}'"
        if spec.name in tensors:
            raise InputError.mismatch(at, expected="one tensor", found="two of this name")
        size = spec.parameters.get("binary_data_size")
        if size is None:
            tensors[spec.name] = _from_json(spec, at)
            continue
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(body) - offset:
            raise InputError.mismatch(f"{at}: binary_data_size", expected=f"at most the {len(body) - offset} bytes left", found=repr(size))
        tensors[spec.name] = _from_bytes(spec, memoryview(body)[offset : offset + size], at)
        offset += size
    if offset != len(body):
        raise InputError.mismatch("request body", expected=f"{offset} bytes, as its tensors say", found=f"{len(body)}")
    return request, tensors


def _json_length(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    plain = header_length.isascii() and header_length.isdigit() and len(header_length) <= 19
    if not plain or not 0 < int(header_length) <= len(body):
        raise InputError.mismatch(
            "header Inference-Header-Content-Length", expected=f"1 to {len(body)} (the body)", found=repr(header_length[:80])
        )
    return int(header_length)


def _dtype(spec: TensorIn, at: str) -> np.dtype[np.generic]:
    if spec.datatype not in DATATYPES:
        raise UnknownName(at, "datatype", spec.datatype, DATATYPES)
    return np.dtype(DATATYPES[spec.datatype])


def _from_json(spec: TensorIn, at: str) -> np.ndarray:
    dtype = _dtype(spec, at)
    if spec.data is None:
        raise InputError.mismatch(at, expected="'data', or 'binary_data_size' in its parameters", found="neither")
    try:
        found = np.asarray(spec.data)
    except (ValueError, OverflowError):
        raise InputError.mismatch(
            f"{at}: data", expected=f"numbers in lists of one length (shape {list(spec.shape)})", found="ragged lists"
        ) from None
    if found.size != math.prod(spec.shape) or (found.ndim > 1 and found.shape != spec.shape):
        raise InputError.mismatch(f"{at}: data", expected=f"shape {list(spec.shape)}", found=f"{list(found.shape)}")
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[dtype.kind]
    if found.size and found.dtype.kind not in kinds:
        raise InputError.mismatch(
            f"{at}: data", expected=f"{spec.datatype} values", found="other values (text, null, fractions or booleans)"
        )
    bounds = np.iinfo(spec.datatype.lower()) if dtype.kind in "iu" else None
    if found.size and bounds is not None and not bounds.min <= int(found.min()) <= int(found.max()) <= bounds.max:
        raise InputError.mismatch(f"{at}: data", expected=f"values within {spec.datatype}", found=f"{found.min()} to {found.max()}")
    with np.errstate(over="ignore"):
        return found.astype(dtype).reshape(spec.shape)


def _from_bytes(spec: TensorIn, body: memoryview, at: str) -> np.ndarray:
    dtype = _dtype(spec, at)
    expected = math.prod(spec.shape) * dtype.itemsize
    if len(body) != expected:
        raise InputError.mismatch(
            f"{at}: binary_data_size", expected=f"{expected} bytes for {spec.datatype} {list(spec.shape)}", found=f"{len(body)}"
        )
    if spec.data is not None:
        raise InputError.mismatch(at, expected="'data' or 'binary_data_size'", found="both")
    return np.frombuffer(body, dtype=dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(spec.shape)


def wanted_outputs(request: InferRequest, known: tuple[str, ...]) -> dict[str, bool]:
    """Name of every output to return, and whether raw; all outputs when the request names none. Raises UnknownName."""
    default = request.parameters.get("binary_data_output") is True
    if not request.outputs:
        return dict.fromkeys(known, default)
    for output in request.outputs:
        if output.name not in known:
            raise UnknownName("request", "output", output.name, known)
    return {output.name: output.parameters.get("binary_data", default) is True for output in request.outputs}


def encode_response(
    outputs: Mapping[str, np.ndarray], raw: Mapping[str, bool], *, name: str, version: str, request_id: str, parameters: Parameters
) -> tuple[bytes, list[tuple[str, str]]]:
    """Body and headers of a response; `raw` says per output whether its tensor follows the JSON as bytes."""
    tail: list[bytes] = []
    tensors = []
    for output, binary in raw.items():
        array = outputs[output]
        datatype, shape = datatype_of(array.dtype.name), tuple(array.shape)
        if binary:
            little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
            tail.append(little.tobytes())
            tensors.append(TensorOut(name=output, datatype=datatype, shape=shape, parameters={"binary_data_size": len(tail[-1])}))
        else:
            tensors.append(TensorOut(name=output, datatype=datatype, shape=shape, data=array.reshape(-1).tolist()))
    head = msgspec.json.encode(
        InferResponse(model_name=name, model_version=version, id=request_id, parameters=parameters, outputs=tuple(tensors))
    )
    if not tail:
        return head, [("content-type", "application/json")]
    return b"".join([head, *tail]), [("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(head)))]
