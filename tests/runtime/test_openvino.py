"""OpenVINO behind the Session protocol, where it is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from liftgate.core.artifact import ModelArtifact, ModelRef
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.session_defaults import SessionDefaults
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from liftgate.runtime.runtimes import open_model, read_runtimes
from liftgate.runtime.session import Session, SessionSettings, open_session

pytest.importorskip("openvino")

LOOKUP = """
<ir_version: 10, opset_import: ["" : 20]>
lookup (int64[rows] item, float[rows,2] x) => (float[rows,1] score)
<float[3,2] table = {1, 2, 3, 4, 5, 6}, float[2,1] w = {0.5, -1.25}>
{
    row = Gather(table, item)
    both = Mul(row, x)
    score = MatMul(both, w)
}
"""
SIGNATURE = Signature(
    inputs=(
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate", rows_of_table=3),
        InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
)
FEEDS = {"item": np.array([2, 0]), "x": np.array([[1, 2], [3, 1]], dtype=np.float32)}


def opened(folder: Path, text: str = LOOKUP) -> Session:
    onnx.save(onnx.parser.parse_model(text), folder / "m.onnx")
    ref = ModelRef(name="m", digest="", runtime="openvino", size_bytes=0)
    return open_model(folder / "m.onnx", SIGNATURE, ref, SessionSettings(), runtime="openvino")


def test_scores_are_those_of_the_graph(tmp_path: Path) -> None:
    # Row 2 is (5, 6): 5 * 1 * 0.5 - 6 * 2 * 1.25 = -12.5. Row 0 is (1, 2): 1 * 3 * 0.5 - 2 * 1 * 1.25 = -1.
    assert opened(tmp_path).run(FEEDS)["score"].tolist() == [[-12.5], [-1.0]]


def test_an_answer_outlives_the_next_request(tmp_path: Path) -> None:
    session = opened(tmp_path)
    first = session.run(FEEDS)["score"]
    session.run({**FEEDS, "item": np.array([1, 1])})
    assert first.tolist() == [[-12.5], [-1.0]]


def test_an_id_outside_its_table_is_an_error_and_not_a_row_of_zeros(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 'item': expected indices 0 to 2 .*found 3"):
        opened(tmp_path).run({**FEEDS, "item": np.array([3, 0])})


def test_what_openvino_cannot_load_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    ref = ModelRef(name="m", digest="", runtime="openvino", size_bytes=0)
    with pytest.raises(InputError, match="OpenVINO cannot load it"):
        open_model(tmp_path / "broken.onnx", SIGNATURE, ref, SessionSettings(), runtime="openvino")


def artifact(store: Store, session: SessionDefaults | None) -> ModelArtifact:
    with store.draft("m") as draft:
        onnx.save(onnx.parser.parse_model(LOOKUP), draft.model_path)
        draft.signature, draft.session = SIGNATURE, session
        return store.commit(draft)


def test_an_artifact_opens_in_the_runtime_of_its_recipe(tmp_path: Path) -> None:
    made = artifact(Store(tmp_path), SessionDefaults(runtime="openvino"))
    session = open_session("m", SessionSettings(), store=Store(tmp_path))
    assert (session.ref.runtime, made.ref().runtime) == ("openvino", "openvino")
    assert type(session).__name__ == "OpenVinoSession"
    assert session.run(FEEDS)["score"].tolist() == [[-12.5], [-1.0]]


def test_a_mistyped_runtime_is_an_error() -> None:
    with pytest.raises(UnknownName, match="did you mean 'openvino'"):
        read_runtimes(["openvin"], where="--runtimes")
