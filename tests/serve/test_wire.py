from __future__ import annotations

import json

import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.serve.wire import HEADER_LENGTH, decode_request, encode_response, wanted_outputs


def body(**tensor: object) -> bytes:
    return json.dumps({"id": "r", "inputs": [{"name": "x", "shape": [2], "datatype": "INT32", **tensor}]}).encode()


def test_nested_and_flat_json_are_the_same_tensor() -> None:
    for data in ([[1, 2], [3, 4]], [1, 2, 3, 4]):
        _, tensors = decode_request(body(shape=[2, 2], data=data), None)
        np.testing.assert_array_equal(tensors["x"], np.array([[1, 2], [3, 4]], dtype=np.int32))
        assert tensors["x"].dtype == np.int32


def test_a_binary_tensor_follows_the_json() -> None:
    head = body(parameters={"binary_data_size": 8})
    _, tensors = decode_request(head + np.array([7, -1], dtype="<i4").tobytes(), str(len(head)))
    assert tensors["x"].tolist() == [7, -1]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"data": [1, 2, 3]}, "expected shape [2], found [3]"),
        ({"data": [1, 2.5]}, "expected INT32 values"),
        ({"data": [1, None]}, "expected INT32 values"),
        ({"data": ["a", "b"]}, "expected INT32 values"),
        ({"data": [[1], [2, 3]]}, "ragged lists"),
        ({"data": [1, 2**31]}, "values within INT32"),
        ({"data": [1, 2**70]}, "expected INT32 values"),
        ({}, "found neither"),
        ({"datatype": "INT33", "data": [1, 2]}, "did you mean 'INT32'?"),
        ({"shape": [-2], "data": [1, 2]}, "$.inputs[0].shape"),
        ({"wrong": 1}, "unknown field `wrong`"),
        ({"parameters": {"binary_data_size": 8}}, "at most the 0 bytes left"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size"),
    ],
)
def test_a_malformed_tensor_is_refused_with_the_reason(tensor: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        decode_request(body(**tensor), None)
    assert message in str(caught.value)


@pytest.mark.parametrize("length", ["0", "-1", "x", "99999", "²", "1" * 5000])
def test_a_json_length_outside_the_body_is_refused(length: str) -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        decode_request(body(data=[1, 2]), length)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
def test_unsigned_tensors_go_both_ways(dtype: str) -> None:
    _, tensors = decode_request(body(datatype=dtype.upper(), data=[0, 65535]), None)
    assert (tensors["x"].dtype.name, tensors["x"].tolist()) == (dtype, [0, 65535])
    highest = int(np.iinfo(dtype).max)
    outputs = {"x": np.array([0, highest], dtype=dtype)}
    content, _ = encode_response(outputs, {"x": False}, name="m", version="v", request_id="r", parameters={})
    assert json.loads(content)["outputs"][0] == {"name": "x", "datatype": dtype.upper(), "shape": [2], "data": [0, highest]}


def test_bytes_that_no_tensor_claims_are_refused() -> None:
    head = body(data=[1, 2])
    with pytest.raises(InputError, match="request body: expected"):
        decode_request(head + b"\0\0\0\0", str(len(head)))


def test_a_binary_request_without_its_header_is_told_about_it() -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        decode_request(body(parameters={"binary_data_size": 8}) + b"\1\0\0\0\2\0\0\0", None)


def test_the_response_carries_raw_and_json_outputs_side_by_side() -> None:
    outputs = {"score": np.array([0.5, 0.25], dtype=np.float32), "slate": np.array([1, 0])}
    content, headers = encode_response(
        outputs, {"score": True, "slate": False}, name="m", version="v", request_id="r", parameters={"arm": "a"}
    )
    length = int(dict(headers)[HEADER_LENGTH])
    head = json.loads(content[:length])
    assert head["outputs"][0] == {"name": "score", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    assert head["outputs"][1] == {"name": "slate", "datatype": "INT64", "shape": [2], "data": [1, 0]}
    assert np.frombuffer(content[length:], dtype="<f4").tolist() == [0.5, 0.25]


def test_outputs_are_raw_when_the_request_or_the_output_says_so() -> None:
    request, _ = decode_request(b'{"inputs":[],"parameters":{"binary_data_output":true}}', None)
    assert wanted_outputs(request, ("a", "b")) == {"a": True, "b": True}
    request, _ = decode_request(b'{"inputs":[],"outputs":[{"name":"b","parameters":{"binary_data":true}}]}', None)
    assert wanted_outputs(request, ("a", "b")) == {"b": True}
