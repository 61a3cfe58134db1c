"""Static int8 tuned by neural-compressor: what it refuses, and what it keeps."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.core.requests import Requests
from liftgate.optimize.apply import apply
from liftgate.optimize.context import StepContext
from liftgate.optimize.passes.segment_quality import SegmentQuality
from liftgate.recipes.recipe import Recipe
from liftgate.recipes.steps import TuneStatic

from .conftest import make_requests
from .real_requests import with_requests

pytestmark = pytest.mark.usefixtures("small_models_may_get_slower")

IDENTITY = """
<ir_version: 10, opset_import: ["" : 20]>
identity (float[rows,1] x) => (float[rows,1] score)
<float[1,1] w = {1}> { score = MatMul(x, w) }
"""


def tuned(**settings: object) -> Recipe:
    step = msgspec.convert({"kind": "tune_static", **settings}, TuneStatic)
    return Recipe(name="tuned", version=1, description="", steps=(step,))


def test_the_record_says_which_configuration_kept_what(archive: Path, tmp_path: Path) -> None:
    result = apply(tuned(tolerance=0.2), archive, store=tmp_path, requests=make_requests(64))
    step = result.manifest.steps[-1]
    assert step.numbers["nodes_quantized"] == 4.0
    assert step.numbers["worst_segment_ratio"] >= 0.8
    assert step.numbers["spearman"] > 0.95
    assert "neural-compressor's choice after 1 of 8 configurations: all int8 by minmax" in step.summary
    assert "worst segment 'all' keeps" in step.summary


def test_when_no_configuration_is_good_enough_all_are_listed(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A loss that no model can have: every configuration is tried, and autotune gives its best all the same.
    step = TuneStatic(tolerance=-1.0, exclude=("mlp.0", "mlp.2"))
    with pytest.raises(RefusedStep, match=r"no configuration keeps 2 of .*all int8 by minmax .*, int8 by kl, query in float "):
        apply(Recipe(name="tuned", version=1, description="", steps=(step,)), archive, store=tmp_path, requests=make_requests(64))


def test_what_it_cannot_do_without(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="needs real requests"):
        apply(tuned(), archive, store=tmp_path)
    unlabelled = Requests(make_requests(64).table.drop(["label"]), source="sample.parquet")
    with pytest.raises(RefusedStep, match="needs labelled requests to judge quality by; add a column 'label'"):
        apply(tuned(), archive, store=tmp_path, requests=unlabelled)
    with pytest.raises(RefusedStep, match="12 requests are too few"):
        apply(tuned(), archive, store=tmp_path, requests=make_requests())
    with pytest.raises(UnknownName, match=r"unknown layer 'mlp\.1'; did you mean 'mlp\.\d'\?"):
        apply(tuned(exclude=["mlp.1"]), archive, store=tmp_path, requests=make_requests(64))


def test_an_artifact_is_not_enough(tmp_path: Path) -> None:
    from liftgate.optimize.steps import run_step  # noqa: PLC0415

    with pytest.raises(RefusedStep, match="needs the PyTorch model, and an artifact holds only ONNX"):
        run_step(TuneStatic(), _judged(tmp_path))


def _judged(folder: Path) -> StepContext:
    values = [np.array([[3.0], [2.0], [1.0]], dtype=np.float32)] * 60
    labels = [[1.0, 0.0, 0.0]] * 60
    return with_requests(IDENTITY, folder, values, labels=labels, segments=["casual"] * 20 + ["power"] * 40)


def test_the_worst_segment_by_hand(tmp_path: Path) -> None:
    quality = SegmentQuality.of(_judged(tmp_path), "here")
    assert quality.before == {"casual": 1.0, "power": 1.0, "all": 1.0}
    kept, swapped = np.array([3.0, 2.0, 1.0]), np.array([2.0, 3.0, 1.0])
    worst = quality.worst([swapped] * 10 + [kept] * 50)
    # Half of the casual users find the relevant candidate second: 1/log2(3) of the gain.
    assert worst.segment == "casual"
    assert worst.ratio == pytest.approx((1 + 1 / np.log2(3)) / 2)
    assert quality.worst([np.full(3, np.nan)] * 60).ratio == 0.0
