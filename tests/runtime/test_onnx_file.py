from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from liftgate.core.errors import InputError, UntrustedError
from liftgate.runtime.onnx_file import check_onnx, load
from liftgate.runtime.onnx_trial import one_helper
from onnx import TensorProto, helper, numpy_helper

GRAPH = """
<ir_version: 10, opset_import: ["" : 20, "com.microsoft" : 1]>
ranker (int64[rows] item) => (float[rows] score)
<float[3, 2] table = {1, 2, 3, 4, 5, 6}, int64[1] last = {1}>
{
    rows = Gather(table, item)
    score = ReduceSum<keepdims=0>(rows, last)
}
"""
EXPANDED = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (float[rows] x) => (float[rows] score)
<float[2] two = {1, 2}, int64[1] one = {1}, int64 zero = {0}, int64 step = {1}, float half = {0.5}>
{
    [grow] big = CALL
    part = ReduceMax<keepdims=0>(big)
    score = Add(x, part)
}
"""


def model(text: str = GRAPH) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def saved(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def outside(tmp_path: Path, location: str, length: int = 24, offset: int = 0) -> onnx.ModelProto:
    """The ranker with its table in another file; that of the folder holds exactly the table."""
    proto = model()
    (tmp_path / "w.data").write_bytes(np.arange(1, 7, dtype=np.float32).tobytes())
    proto.graph.initializer[0].CopyFrom(elsewhere("table", [3, 2], location, length, offset))
    return proto


def elsewhere(name: str, shape: list[int], location: str, length: int, offset: int = 0) -> TensorProto:
    """A float tensor whose contents lie in another file."""
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_a_ranker_is_taken_with_its_weights_inside_or_beside_it(tmp_path: Path) -> None:
    inside = saved(model(), tmp_path / "inside.onnx")
    beside = saved(outside(tmp_path, "w.data"), tmp_path / "beside.onnx")
    with one_helper():
        check_onnx(inside)
        check_onnx(beside)
    assert load(beside).graph.initializers["table"].const_value.numpy().tolist() == [[1, 2], [3, 4], [5, 6]]  # type: ignore[union-attr]  # just loaded


@pytest.mark.parametrize("location", ["/etc/passwd", "../w.data", "sub/w.data", "link", "..", "", "nothing.data", "w.data\0"])
def test_weights_may_only_lie_in_a_plain_file_beside_the_model(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        (place / "w.data").write_bytes(b"\0" * 24)
    (folder / "link").symlink_to(tmp_path / "w.data")
    with pytest.raises(UntrustedError, match=r"initializer 'table': keeps its weights in '.*', which is no file beside the model"):
        load(saved(outside(folder, location), folder / "m.onnx"))


def test_weights_beside_the_model_must_be_all_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'w.data': expected 24 bytes inside the file, found bytes 8 to 32 of a file of 24"):
        load(saved(outside(tmp_path, "w.data", offset=8), tmp_path / "m.onnx"))
    with pytest.raises(InputError, match=r"expected 24 bytes inside the file, found bytes 0 to 20"):
        load(saved(outside(tmp_path, "w.data", length=20), tmp_path / "m.onnx"))


def in_constant(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.graph.node.append(helper.make_node("Constant", [], ["c"], name="c", value=tensor))


def in_subgraph(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], name="c", value=tensor)], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))


def in_function(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["c"], name="c", value=tensor)
    proto.functions.append(helper.make_function("mine", "f", [], ["c"], [node], [helper.make_opsetid("", 20)]))


def in_sparse_initializer(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    indices = numpy_helper.from_array(np.array([0]), "c")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [4]))


def in_training(proto: onnx.ModelProto, tensor: TensorProto) -> None:
    proto.training_info.add().algorithm.initializer.append(tensor)


@pytest.mark.parametrize("place", [in_constant, in_subgraph, in_function, in_sparse_initializer, in_training])
def test_files_are_looked_for_in_every_corner_of_a_model(tmp_path: Path, place: Callable[[onnx.ModelProto, TensorProto], None]) -> None:
    proto = model()
    place(proto, elsewhere("c", [1], "/etc/passwd", 4))
    with pytest.raises(UntrustedError, match="'/etc/passwd', which is no file beside the model"):
        load(saved(proto, tmp_path / "m.onnx"))


def test_a_tensor_must_hold_what_its_shape_says(tmp_path: Path) -> None:
    proto = model()
    proto.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(InputError, match=r"'table': a tensor of shape \[1099511627776, 2\]: expected .*, found (6|24)"):
        load(saved(proto, tmp_path / "m.onnx"))
    proto.graph.initializer[0].dims[0] = -3
    with pytest.raises(InputError, match=r"'table': holds a tensor of shape \[-3, 2\]"):
        load(saved(proto, tmp_path / "m.onnx"))


def test_operators_of_other_libraries_are_refused_by_name(tmp_path: Path) -> None:
    text = GRAPH.replace('"com.microsoft" : 1', '"ai.onnx.contrib" : 1').replace("rows = Gather(", "[py] rows = ai.onnx.contrib.PyOp(")
    with pytest.raises(UntrustedError, match=r"node 'py' \(PyOp\): is an operator of another library \('ai\.onnx\.contrib'\)"):
        load(saved(model(text), tmp_path / "m.onnx"))


def test_functions_of_the_model_itself_are_no_other_library(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20, "mine" : 1]>
    ranker (float[rows] x) => (float[rows] score) { score = mine.twice(x) }
    <domain: "mine", opset_import: ["" : 20]>
    twice (a) => (b) { b = Add(a, a) }
    """
    load(saved(model(text), tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    "call",
    [
        "ConstantOfShape(size) <int64[2] size = {100000, 100000}>",
        "Expand(two, size) <int64[2] size = {5000000000, 2}>",
        "Tile(two, size) <int64[1] size = {5000000000}>",
        "Pad(two, size) <int64[2] size = {0, 5000000000}>",
        "Range(zero, size, step) <int64 size = {5000000000}>",
        "RandomNormal<shape=[100000, 100000]>()",
    ],
)
def test_constants_that_would_fill_the_memory_are_refused_by_node(tmp_path: Path, call: str) -> None:
    expression, _, constant = call.partition(" <")
    text = EXPANDED.replace("CALL", expression)
    if constant:
        text = text.replace("float half = {0.5}>", constant)
    with pytest.raises(InputError, match=r"node 'grow' \(\w+\): expected a result of at most 2,147,483,648 elements, found [\d,]+"):
        load(saved(model(text), tmp_path / "m.onnx"))


def test_a_graph_on_which_onnx_runtime_ends_the_process_is_an_error(tmp_path: Path) -> None:
    # ONNX's shape inference indexes past the end of a vector here, and ends its process.
    split = GRAPH.replace("score = ReduceSum", "a, b = Split<axis=0, num_outputs=1>(table)\n    score = ReduceSum")
    with pytest.raises(InputError, match=r"crashes ONNX Runtime \(signal \d+\)"):
        check_onnx(saved(model(split), tmp_path / "m.onnx"))


def test_what_onnx_runtime_refuses_is_one_line(tmp_path: Path) -> None:
    wrong = GRAPH.replace("float[3, 2] table = {1, 2, 3, 4, 5, 6}", "float[6] table = {1, 2, 3, 4, 5, 6}").replace(
        "Gather(", "Gather<axis=3>("
    )
    with pytest.raises(InputError, match=r"m\.onnx: cannot be loaded") as caught:
        check_onnx(saved(model(wrong), tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_truncated_model_is_one_clear_error(tmp_path: Path, share: float) -> None:
    content = model().SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"m\.onnx: "):
        load(tmp_path / "m.onnx")


def test_a_nest_of_graphs_is_no_crash(tmp_path: Path) -> None:
    graph = helper.make_graph([], "leaf", [], [])
    for _ in range(40):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)], "g", [], [])
        if graph.ByteSize() > 2**20:
            break
    with pytest.raises(InputError, match="is no valid ONNX model"):
        load(saved(helper.make_model(graph), tmp_path / "m.onnx"))


def test_a_file_above_what_protobuf_reads_says_what_to_do(tmp_path: Path) -> None:
    with (tmp_path / "m.onnx").open("wb") as file:
        file.truncate(2**31 + 1)
    with pytest.raises(InputError, match=r"expected an ONNX file of less than 2 GiB, found 2\.0 GiB; save its weights beside it"):
        load(tmp_path / "m.onnx")
