"""The step hoist_request: what it records, refuses and checks."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import RefusedStep
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, Layout, OutputSpec, Role, Signature
from liftgate.core.store import Store
from liftgate.optimize.apply import apply
from liftgate.optimize.context import StepContext
from liftgate.optimize.passes.hoist_request import hoist_request
from liftgate.optimize.samples import Samples
from liftgate.recipes.steps import HoistRequest
from liftgate.runtime.session import SessionSettings, open_session

pytestmark = pytest.mark.usefixtures("small_models_may_get_slower")

SUM = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (float[rows,8] user, float[rows,8] item) => (float[rows,8] score) <float[8,8] w = {}>
{ tower = MatMul(user, w)  score = Mul(tower, item) }
""".replace("= {}", "= {" + ", ".join(str(number % 7) for number in range(64)) + "}")


def context(folder: Path, *, user: Role = "request", item: Role = "candidate", layout: Layout = "rows", text: str = SUM) -> StepContext:
    onnx.save(onnx.parser.parse_model(text), folder / "in.onnx")
    inputs = (
        InputSpec(name="user", dtype="float32", shape=("rows", 8), role=user),
        InputSpec(name="item", dtype="float32", shape=("rows", 8), role=item),
    )
    signature = Signature(inputs=inputs, outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 8)),))
    pool = {name: np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32) for name in ("user", "item")}
    return StepContext(
        where="ranker",
        source=folder / "in.onnx",
        target=folder / "out.onnx",
        signature=msgspec.structs.replace(signature, layout=layout),
        samples=Samples(pool=pool, note="by hand"),
        calibrated=False,
    )


def test_the_record_counts_work_and_the_signature_changes_its_layout(tmp_path: Path) -> None:
    record, signature = hoist_request(HoistRequest(), context(tmp_path))
    # The tower is 2 x 8 x 8 once instead of 256 times; the product of 256 x 8 numbers stays.
    assert record.numbers["flops_before"] == 256 * (128 + 8)
    assert record.numbers["flops_after"] == 128 + 256 * 8
    assert record.numbers["max_relative_difference"] < 1e-6
    assert signature.layout == "request"


@pytest.mark.parametrize(
    ("roles", "layout", "reason"),
    [
        (("candidate", "candidate"), "rows", "no input is known to be the same for all candidates; .*--request-inputs"),
        (("request", "request"), "rows", "no input differs from candidate to candidate"),
        (("request", "candidate"), "request", "already come once per request"),
    ],
)
def test_without_both_roles_or_in_the_new_layout_it_refuses(tmp_path: Path, roles: tuple[Role, Role], layout: Layout, reason: str) -> None:
    with pytest.raises(RefusedStep, match=reason):
        hoist_request(HoistRequest(), context(tmp_path, user=roles[0], item=roles[1], layout=layout))
    assert not (tmp_path / "out.onnx").exists()


def test_a_model_that_only_compares_candidates_is_left_alone(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    ranker (float[rows,8] user, float[rows,8] item) => (float[rows,8] score) { share = Softmax<axis = 0>(user)  score = Mul(share, item) }
    """
    with pytest.raises(RefusedStep, match=r"nothing became less|would do more work"):
        hoist_request(HoistRequest(), context(tmp_path, text=text))
    assert not (tmp_path / "out.onnx").exists()


def test_the_recipe_exact_serves_requests_and_rows_alike(tmp_path: Path, exported: ModelArtifact, requests: Requests) -> None:
    made = apply("exact", exported, name="exact", requests=requests, store=Store(tmp_path))
    before, after = (open_session(model, SessionSettings(), store=Store(tmp_path)) for model in (exported, made))
    assert made.manifest.steps[-1].kind in {"hoist_request", "fuse", "precompute"}
    several: dict[str, list[np.ndarray]] = {}
    for rows, once in zip(requests.feeds(before.signature), requests.feeds(after.signature), strict=True):
        expected = before.run(rows)["score"]
        assert once["user"].shape == (1,)
        np.testing.assert_allclose(after.run(once)["score"], expected, rtol=1e-5, atol=1e-6)
        for name, array in rows.items():
            several.setdefault(name, []).append(array)
    whole = {name: np.concatenate(arrays) for name, arrays in several.items()}
    np.testing.assert_allclose(after.run(whole)["score"], before.run(whole)["score"], rtol=1e-5, atol=1e-6)
