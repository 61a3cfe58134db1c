from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.inspection import Inspection, inspect

ONNX = """<ir_version: 10, opset_import: ["" : 20]>
ranker (int64[n] user, int64[n] item, float[n,t,4] history) => (float[n] score)
<float[9,4] users = {}, float[7,4] items = {}, int64[2] axes = {1, 2}> {
    u = Gather(users, user)
    i = Gather(items, item)
    both = Mul(u, i)
    one = Constant<value = int64[1] {1}>()
    wide = Unsqueeze(both, one)
    seen = Mul(wide, history)
    score = ReduceSum<keepdims=0>(seen, axes)
}"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    proto = onnx.parser.parse_model(ONNX)
    for tensor in proto.graph.initializer[:2]:
        tensor.raw_data = bytes(16 * tensor.dims[0])
    path = tmp_path_factory.mktemp("onnx") / "ranker.onnx"
    onnx.save(proto, path)
    return path


def test_an_artifact_shows_its_manifest_and_its_cost(exported: ModelArtifact, store: Store) -> None:
    found = inspect("v1.1", store=store, candidates=100, dims={"history": 6})
    assert found.manifest == exported.manifest
    assert [one.name for one in found.lineage] == ["v1.1"]
    assert found.cost.roles_known
    # The MLP on rows of 24: 24 -> 32 -> 16 -> 1 with biases; the query 8 -> 8; two products with a history of 6 vectors of 8.
    products = sum(node.flops or 0 for node in found.cost.nodes if node.op in {"Gemm", "MatMul"})
    assert products == 100 * (2 * (24 * 32 + 32 * 16 + 16) + 32 + 16 + 1 + 2 * 64 + 8 + 2 * 2 * 6 * 8)
    assert found.flops == found.cost.flops
    assert {(table.name, table.indexed_by) for table in found.cost.tables} == {
        ("users.weight", ("user",)),
        ("items.weight", ("item", "history")),
    }


def test_an_onnx_file_is_looked_at_as_it_lies(file: Path, tmp_path: Path) -> None:
    found = inspect(file, candidates=10, dims={"history": 3}, store=tmp_path / "store")
    assert (found.name, found.manifest, found.size_bytes) == ("ranker.onnx", None, file.stat().st_size)
    assert [spec.shape for spec in found.signature.inputs] == [("rows",), ("rows",), ("rows", "history_1", 4)]
    assert found.flops.total == 10 * (4 + 12 + 12)
    assert not found.cost.roles_known
    assert not (tmp_path / "store").exists()


def test_request_inputs_can_be_named_for_the_look(file: Path) -> None:
    found = inspect(file, request_inputs=["user", "history"], candidates=10, dims={"history": 3})
    assert [spec.role for spec in found.signature.inputs] == ["request", "candidate", "request"]
    assert (found.bytes.request, found.bytes.request_once) == (10 * (8 + 2 * 16), 8 + 2 * 16)
    with pytest.raises(UnknownName, match="unknown input 'usr'"):
        inspect(file, request_inputs=["usr"])


def test_a_bare_archive_is_exported_for_the_look_only(archive: Path, requests: Requests, tmp_path: Path) -> None:
    found = inspect(archive, requests=requests, store=tmp_path / "store")
    assert found.manifest is not None
    assert (found.stored, found.lineage) == (False, ())
    assert found.cost.roles_known
    assert not (tmp_path / "store").exists()


def test_operators_of_subgraphs_and_functions_are_counted(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20, "other" : 1]>
        ranker (float[n,4] x, bool[n] c) => (float[n,4] score) {
            any = ReduceMax<keepdims=0>(y)
            b = Cast<to=9>(any)
            y = other.Twice(x)
            score = If(b) <then_branch = t () => (float[k,l] o) { o = Relu(y) }, else_branch = e () => (float[p,q] r) { r = Neg(y) }>
        }
        <domain: "other", opset_import: ["" : 20]> Twice (a) => (b) { b = Add(a, a) }"""
    )
    proto.graph.node.insert(0, proto.graph.node.pop(2))
    onnx.save(proto, tmp_path / "m.onnx")
    found = inspect(tmp_path / "m.onnx").operators
    assert found == {"Add": 1, "Cast": 1, "If": 1, "Neg": 1, "ReduceMax": 1, "Relu": 1}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nothing-here", "unknown model 'nothing-here'"),
        ("nothing.pt", "expected a model file, found nothing"),
        ("nothing.onnx", "expected a model file, found nothing"),
    ],
)
def test_what_is_not_there_is_said_to_be_missing(model: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        inspect(model, store=tmp_path / "store")


def test_an_inspection_survives_json(file: Path) -> None:
    found = inspect(file)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Inspection) == found
