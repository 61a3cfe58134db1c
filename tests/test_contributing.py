"""The worked examples of CONTRIBUTING.md, run as they stand."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx.parser
import pytest
from liftgate.core.config import parse_toml
from liftgate.core.errors import RefusedStep
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.optimize.context import StepContext
from liftgate.optimize.samples import from_signature
from liftgate.profile.machines.instance import Instance
from liftgate.quality.metrics import Ranking

ROOT = Path(__file__).resolve().parent.parent


def example(name: str) -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None
    return match[1]


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType(f"contributing_{name}")
    monkeypatch.setitem(sys.modules, made.__name__, made)  # msgspec looks a type's module up
    exec(compile(example(name), f"CONTRIBUTING.md: {name}", "exec"), made.__dict__)
    return made


def test_the_instance_is_read_as_written() -> None:
    instance = parse_toml(example("instance"), Instance, where="r6i.large.toml")
    assert (instance.name, instance.vcpu, instance.threads_per_core) == ("r6i.large", 2, 2)


def test_the_metric_gives_what_hand_counting_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    hit_rate = module("metric", monkeypatch).HitRate(k=1)
    # User a: one hit, one miss; user b: one request without a relevant candidate, left out; user c: a hit.
    scores = [np.array([2.0, 1.0]), np.array([2.0, 1.0]), np.array([1.0, 2.0]), np.array([1.0, 2.0])]
    labels = [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 0.0]), np.array([0.0, 1.0])]
    found = hit_rate.per_user(Ranking.of(scores, labels, ["a", "a", "b", "c"]))
    assert (found.users, found.values.tolist(), found.undefined_requests) == (("a", "c"), [0.5, 1.0], 1)


GRAPH = """
<ir_version: 10, opset_import: ["": 20]>
ranker (float[rows, 4] x) => (float[rows, 4] score) {
  copy = Identity (x)
  again = Identity (copy)
  score = Relu (again)
}
"""


def test_the_technique_removes_what_it_says_and_refuses_a_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = module("technique", monkeypatch)
    onnx.save(onnx.parser.parse_model(GRAPH), tmp_path / "before.onnx")
    signature = Signature(
        inputs=(InputSpec(name="x", dtype="float32", shape=("rows", 4), role="candidate"),),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 4)),),
    )

    def context(source: str, target: str) -> StepContext:
        return StepContext(
            where="ranker",
            source=tmp_path / source,
            target=tmp_path / target,
            signature=signature,
            samples=from_signature(signature),
            calibrated=False,
        )

    record = made.drop_identity(made.DropIdentity(), context("before.onnx", "after.onnx"))
    assert record.summary == "2 Identity nodes removed"
    assert [(n.op_type, list(n.input)) for n in onnx.load(tmp_path / "after.onnx").graph.node] == [("Relu", ["x"])]
    with pytest.raises(RefusedStep, match="no Identity node"):
        made.drop_identity(made.DropIdentity(), context("after.onnx", "again.onnx"))
