"""Blending two models in weight space, with weights that can be followed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.parser
import pytest
from liftgate.cli import app
from liftgate.core.artifact import ModelArtifact, StepRecord
from liftgate.core.errors import InputError, RefusedStep
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from liftgate.optimize.context import StepContext
from liftgate.optimize.passes.blend import blend
from liftgate.optimize.samples import Samples
from liftgate.recipes.steps import Blend
from typer.testing import CliRunner

from .step_context import score, weights

SIGNATURE = Signature(
    inputs=(
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate"),
        InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
)
FEEDS = {"item": np.array([0, 2]), "x": np.array([[1, 0], [0, 1]], dtype=np.float32)}


def text(table: str, w: str, *, rows: int = 3, names: tuple[str, str] = ("table", "w"), op: str = "Add") -> str:
    t, v = names
    return f"""
<ir_version: 10, opset_import: ["" : 20]>
ranker (int64[rows] item, float[rows,2] x) => (float[rows,1] score)
<float[{rows},2] {t} = {{{table}}}, float[2,1] {v} = {{{w}}}>
{{
    [lookup] row = Gather({t}, item)
    [both] sum = {op}(row, x)
    [top] score = MatMul(sum, {v})
}}
"""


BASE = text("1, 2, 3, 4, 5, 6", "1, 0")
TUNED = text("1, 2, 3, 4, 9, 6", "0, 2")


def stored(folder: Path, model: str, name: str, *steps: StepRecord) -> ModelArtifact:
    with Store(folder / "store").draft(name) as draft:
        onnx.save(onnx.parser.parse_model(model), draft.model_path)
        draft.signature, draft.steps = SIGNATURE, steps
        return Store(folder / "store").commit(draft)


def context(folder: Path, base: str | None, tuned: str, *steps: StepRecord, requests: Requests | None = None) -> StepContext:
    onnx.save(onnx.parser.parse_model(tuned), folder / "in.onnx")
    return StepContext(
        where="v1.1",
        source=folder / "in.onnx",
        target=folder / "out.onnx",
        signature=SIGNATURE,
        samples=Samples(pool=FEEDS, note="by hand"),
        calibrated=False,
        base=None if base is None else stored(folder, base, "v1.0", *steps),
        requests=requests,
    )


def test_weights_lie_between_both_models(tmp_path: Path) -> None:
    record = blend(Blend(alpha=0.25), context(tmp_path, BASE, TUNED))
    found = weights(tmp_path / "out.onnx")
    # 0.75 * 5 + 0.25 * 9 = 6 in the row that moved; (0.75 * 1 + 0.25 * 0, 0.75 * 0 + 0.25 * 2) in the last layer.
    assert found["table"].tolist() == [[1, 2], [3, 4], [6, 6]]
    assert found["w"].tolist() == [[0.75], [0.5]]
    assert record.numbers["weights_blended"] == 2.0


@pytest.mark.parametrize(("alpha", "same_as"), [(0.0, BASE), (1.0, TUNED)])
def test_the_ends_are_the_models_themselves(tmp_path: Path, alpha: float, same_as: str) -> None:
    blend(Blend(alpha=alpha), context(tmp_path, BASE, TUNED))
    onnx.save(onnx.parser.parse_model(same_as), tmp_path / "end.onnx")
    assert np.array_equal(score(tmp_path / "out.onnx", FEEDS), score(tmp_path / "end.onnx", FEEDS))


def test_names_do_not_matter(tmp_path: Path) -> None:
    other = text("1, 2, 3, 4, 9, 6", "0, 2", names=("embedding_weight", "val_7"))
    blend(Blend(alpha=0.5), context(tmp_path, BASE, other))
    assert weights(tmp_path / "out.onnx")["val_7"].tolist() == [[0.5], [1.0]]


def test_new_items_keep_their_rows(tmp_path: Path) -> None:
    grown = text("1, 2, 3, 4, 9, 6, 7, 8", "1, 0", rows=4)
    record = blend(Blend(alpha=0.5), context(tmp_path, BASE, grown))
    assert weights(tmp_path / "out.onnx")["table"].tolist() == [[1, 2], [3, 4], [7, 6], [7, 8]]
    assert "table 3 of 4 rows" in record.summary


# Each column of x is a feature: the base ranks by the first, the tuned model by the second; the labels of `a` follow the first and
# those of `b` the second. Item 0 has an empty row.
ZERO = "0, 0, 0, 0, 0, 0"


def requests(users: int = 24) -> Requests:
    random = np.random.default_rng(0)
    x = random.normal(size=(users, 12, 2)).astype(np.float32)
    likes = [0 if i % 3 else 1 for i in range(users)]
    label = [(x[i, :, side] >= np.sort(x[i, :, side])[-2]).astype(float).tolist() for i, side in enumerate(likes)]
    data: dict[str, Sequence[object]] = {
        "request_id": [f"r{i}" for i in range(users)],
        "user_id": [f"u{i}" for i in range(users)],
        "segment": ["b" if side else "a" for side in likes],
        "item": [[0] * 12] * users,
        "x": x.tolist(),
        "label": label,
    }
    return Requests.of(data, source="valid.parquet")


def test_auto_takes_the_best_blend_whose_worst_segment_holds(tmp_path: Path) -> None:
    record = blend(Blend(floor=0.9), context(tmp_path, text(ZERO, "1, 0"), text(ZERO, "0, 1"), requests=requests()))
    numbers = record.numbers
    assert numbers["overall_at_0"] == pytest.approx(1.0)
    assert numbers["worst_at_1"] < 0.7  # the tuned model alone ruins segment a
    holding = {k.removeprefix("worst_at_"): v for k, v in numbers.items() if k.startswith("worst_at_") and v >= 0.9}
    best = max(holding, key=lambda alpha: numbers[f"overall_at_{alpha}"])
    assert numbers["alpha"] == float(best)
    assert 0 < numbers["alpha"] < 0.6
    assert 0 <= numbers["negative_flips"] < 0.5


def test_auto_refuses_when_one_of_the_models_is_best(tmp_path: Path) -> None:
    with pytest.raises(
        RefusedStep, match=r"better than v1\.0 itself \(alpha: NDCG@10 overall / worst segment: 0: 1\.0000 / 1\.0000, 0\.1:"
    ):
        blend(Blend(floor=1.0), context(tmp_path, text(ZERO, "1, 0"), text(ZERO, "0, 1"), requests=requests()))


REFUSED = {
    "another operator": (text(ZERO, "1, 0", op="Mul"), r"node 'both' is a Mul, the base has Add \('both'\) in its place"),
    "another shape": (
        text(ZERO, "1, 0").replace("Gather(table, item)", "Identity(x)").replace("[lookup] row", "[lookup] row"),
        r"node 'lookup' is a Identity, the base has Gather",
    ),
    "the same weights": (BASE, "both models have the same weights"),
    "quantized": (
        text(ZERO, "1, 0").replace("[both] sum = Add(row, x)", "[q] z, s, p = DynamicQuantizeLinear(row)\n    [both] sum = Add(row, x)"),
        r"the model is quantized \(node 'q', DynamicQuantizeLinear\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_structures_are_refused_at_their_first_difference(tmp_path: Path, case: str) -> None:
    tuned, message = REFUSED[case]
    with pytest.raises(RefusedStep, match=message):
        blend(Blend(alpha=0.5), context(tmp_path, BASE, tuned))
    assert not (tmp_path / "out.onnx").exists()


def test_a_pruned_base_is_refused(tmp_path: Path) -> None:
    step = StepRecord(kind="prune", settings={}, summary="")
    with pytest.raises(RefusedStep, match=r"the base v1\.0 went through prune, after which its units are others"):
        blend(Blend(alpha=0.5), context(tmp_path, BASE, TUNED, step))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match=r"--base v1\.0"):
        blend(Blend(alpha=0.5), context(tmp_path, None, TUNED))
    with pytest.raises(RefusedStep, match="needs labelled requests to choose alpha by"):
        blend(Blend(), context(tmp_path, BASE, TUNED))
    with pytest.raises(InputError, match="blend: alpha: expected a share from 0 to 1"):
        Blend(alpha=1.5)


def test_the_command_names_base_and_share(tmp_path: Path) -> None:
    stored(tmp_path, BASE, "v1.0")
    stored(tmp_path, TUNED, "v1.1")
    requests().write(tmp_path / "valid.parquet")
    words = ["optimize", "blend", "v1.1", "--base", "v1.0", "--alpha", "0.5", "--requests", str(tmp_path / "valid.parquet")]
    outcome = CliRunner().invoke(app, [*words, "--store", str(tmp_path / "store"), "--json", str(tmp_path / "out.json")])
    assert outcome.exit_code == 0, outcome.output
    manifest = msgspec.json.decode((tmp_path / "out.json").read_bytes())
    assert (manifest["name"], manifest["recipe"]) == ("v1.1-blend", "blend@1")
    assert manifest["steps"][-1]["settings"]["alpha"] == 0.5
