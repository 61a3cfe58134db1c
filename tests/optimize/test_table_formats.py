"""Tables in fewer bits: what a row becomes, how an id outside fails, and what the step reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import onnx
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.core.requests import Requests
from liftgate.optimize.context import StepContext
from liftgate.optimize.steps import run_step
from liftgate.optimize.tables.formats import Half, Scaled, row_errors, stored
from liftgate.recipes.steps import CompressTables, TrimTables

from .step_context import context_of, score, weights

Format = Literal["fp16", "int8", "int4"]
FORMATS: tuple[Format, ...] = ("fp16", "int8", "int4")

LOOKUP = """
<ir_version: 10, opset_import: ["" : 20]>
lookup (int64[rows] item) => (float[rows,2] score)
<float[{rows},{width}] items, float[{width},2] w>
{{
    row = Gather(items, item)
    score = MatMul(row, w)
}}
"""


def lookup(folder: Path, items: np.ndarray, ids: np.ndarray, *, opset: int = 20) -> StepContext:
    """A context whose model gives the first two numbers of a row."""
    text = LOOKUP.format(rows=len(items), width=items.shape[1]).replace('"" : 20', f'"" : {opset}')
    text = text[: text.index("<float[")] + text[text.index("{\n") :]
    context = context_of(text, folder, {"item": ids}, calibrated=False)
    model = onnx.load(context.source)
    head = np.eye(items.shape[1], 2, dtype=np.float32)
    model.graph.initializer.extend([onnx.numpy_helper.from_array(items, "items"), onnx.numpy_helper.from_array(head, "w")])
    onnx.save(model, context.source)
    return context


ITEMS = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32) * np.geomspace(0.01, 10, 50)[:, None].astype(np.float32)


def test_four_bit_rows_are_restored_from_sixteen_levels() -> None:
    # From 0 to 15 in steps of 1 every number is a level; an odd width leaves half a byte empty.
    table = np.array([[0, 1, 15], [-3, 0, 12]], np.float32)
    kept = stored(table, "int4")
    assert isinstance(kept, Scaled) and kept.codes.shape == (2, 2)
    np.testing.assert_array_equal(kept.codes, [[0 | 15 << 4, 1], [0 | 15 << 4, 3]])
    np.testing.assert_array_equal(kept.rows(), table)


def test_eight_bit_rows_get_an_offset_only_where_it_halves_the_error() -> None:
    around_zero, far_from_zero = stored(ITEMS, "int8"), stored(np.abs(ITEMS) + 20, "int8")
    assert isinstance(around_zero, Scaled) and around_zero.offset is None and around_zero.codes.dtype == np.int8
    assert isinstance(far_from_zero, Scaled) and far_from_zero.offset is not None and far_from_zero.codes.dtype == np.uint8


def test_a_row_error_is_relative_to_the_row() -> None:
    table = np.array([[3, 4], [0, 0], [1, 1]], np.float32)
    kept = Half(numbers=np.array([[3, 4.5], [0, 0], [1, 1]], np.float16))
    np.testing.assert_allclose(row_errors(table, kept), [0.1, 0, 0])


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_of_zeros_stay_zeros(kind: Format) -> None:
    kept = stored(np.zeros((3, 4), np.float32), kind)
    assert kept is not None
    np.testing.assert_array_equal(kept.rows(), np.zeros((3, 4)))


@pytest.mark.parametrize(("kind", "bound"), [("fp16", 5e-4), ("int8", 0.02), ("int4", 0.2)])
def test_a_model_reads_what_is_stored(tmp_path: Path, kind: Format, bound: float) -> None:
    ids = np.array([0, 49, 7, -1])
    record, _ = run_step(CompressTables(format=kind, min_rows=50), lookup(tmp_path, ITEMS, ids))
    kept = stored(ITEMS, kind)
    assert kept is not None
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"item": ids}), kept.rows()[ids, :2], rtol=1e-6, atol=1e-7)
    assert 0 < record.numbers["mean_row_error"] <= record.numbers["worst_row_error"] < bound
    assert record.numbers["tables_mib_before"] == 50 * 33 * 4 / 2**20
    assert record.numbers["tables_mib_after"] == {"fp16": 50 * 33 * 2, "int8": 50 * 37, "int4": 50 * (17 + 8)}[kind] / 2**20
    assert record.numbers["lookup_us_before"] > 0 and record.numbers["lookup_us_after"] > 0
    assert "items" not in weights(tmp_path / "out.onnx")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("item", [50, -51])
def test_an_id_outside_its_table_fails_in_every_format(tmp_path: Path, kind: Format, item: int) -> None:
    run_step(CompressTables(format=kind, min_rows=50), lookup(tmp_path, ITEMS, np.array([0])))
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"item": np.array([item])})


@pytest.mark.parametrize(
    ("step", "fix"),
    [
        (CompressTables(), "items (50 rows)"),
        (CompressTables(min_rows=1, exclude=("items",)), "items (excluded)"),
    ],
)
def test_small_and_excluded_tables_are_left_alone(tmp_path: Path, step: CompressTables, fix: str) -> None:
    with pytest.raises(RefusedStep) as refusal:
        run_step(step, lookup(tmp_path, ITEMS, np.array([0])))
    assert fix in str(refusal.value) and not (tmp_path / "out.onnx").exists()


def test_a_table_that_is_multiplied_as_a_whole_is_left_alone(tmp_path: Path) -> None:
    context = lookup(tmp_path, ITEMS[:, :2], np.array([0]))
    model = onnx.load(context.source)
    model.graph.node.append(onnx.helper.make_node("Transpose", ["items"], ["turned"], name="tied"))
    model.graph.output.append(onnx.helper.make_tensor_value_info("turned", onnx.TensorProto.FLOAT, [2, 50]))
    onnx.save(model, context.source)
    with pytest.raises(RefusedStep, match=r"items \('tied' \(Transpose\) reads all of it\)"):
        run_step(CompressTables(min_rows=1), context)


def test_numbers_beyond_half_precision_are_not_made_infinite(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="numbers that fp16 cannot hold"):
        run_step(CompressTables(min_rows=1), lookup(tmp_path, ITEMS * 1e5, np.array([0])))


def test_a_table_of_single_numbers_gets_no_smaller(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="no smaller: 1 numbers per row"):
        run_step(CompressTables(format="int8", min_rows=1), lookup(tmp_path, ITEMS[:, :1], np.array([0])))


def test_an_excluded_table_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown table 'itms'; did you mean 'items'"):
        run_step(CompressTables(exclude=("itms",)), lookup(tmp_path, ITEMS, np.array([0])))


def test_four_bits_need_the_operator_of_opset_18(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="int4 needs opset 18, the model has 17"):
        run_step(CompressTables(format="int4", min_rows=1), lookup(tmp_path, ITEMS, np.array([0]), opset=17))


def asking(context: StepContext, items: list[list[int]]) -> StepContext:
    """The same with requests for these items."""
    count = len(items)
    data: dict[str, Sequence[object]] = {"request_id": [f"r{i}" for i in range(count)], "user_id": ["u"] * count, "item": items}
    return msgspec.structs.replace(context, requests=Requests.of(data), calibrated=True)


# 200 requests, all for items 0, 3 and 7.
SOME = [[0, 3, 7], [7, 3]] * 100


@pytest.mark.parametrize(("cold", "expected"), [("mean", None), ("padding", 0)])
def test_rows_that_nobody_asks_for_share_one(tmp_path: Path, cold: Literal["mean", "padding"], expected: int | None) -> None:
    context = asking(lookup(tmp_path, ITEMS, np.array([0])), SOME)
    record, _ = run_step(TrimTables(cold=cold, min_rows=50), context)
    asked = np.array([0, 3, 7, -43])
    np.testing.assert_array_equal(score(tmp_path / "out.onnx", {"item": asked}), ITEMS[asked, :2])
    others = np.delete(ITEMS, [0, 3, 7], axis=0)[:, :2].mean(axis=0) if expected is None else ITEMS[expected, :2]
    np.testing.assert_allclose(score(tmp_path / "out.onnx", {"item": np.array([1, 49])}), [others, others], rtol=1e-5)
    rows = 4 if cold == "mean" else 3
    assert record.numbers["rows_kept"] == 3 and record.numbers["cold_share"] == 0
    assert record.numbers["mib_saved"] == (50 * 33 * 4 - rows * 33 * 4 - 50 * 4) / 2**20


@pytest.mark.parametrize("item", [50, -51])
def test_an_id_outside_the_original_vocabulary_still_fails(tmp_path: Path, item: int) -> None:
    run_step(TrimTables(min_rows=50), asking(lookup(tmp_path, ITEMS, np.array([0])), SOME))
    with pytest.raises(Exception, match="out of data bounds"):
        score(tmp_path / "out.onnx", {"item": np.array([item])})


def test_requests_that_keep_asking_for_new_rows_are_too_few(tmp_path: Path) -> None:
    # The held-out half, every second request, has 80 x 2 + 20 lookups; the 20 of row 9 were never seen in the other.
    items = [[0, 3, 7], [7, 3]] * 80 + [[0], [9]] * 20
    with pytest.raises(RefusedStep, match=r"11.11% of 180 lookups would meet a cold row, more than 1.00% \(most in 'items'"):
        run_step(TrimTables(min_rows=50), asking(lookup(tmp_path, ITEMS, np.array([0])), items))
    assert not (tmp_path / "out.onnx").exists()


def test_a_handful_of_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="2 requests say too little"):
        run_step(TrimTables(min_rows=50), asking(lookup(tmp_path, ITEMS, np.array([0])), SOME[:2]))


def test_a_table_that_is_asked_for_in_full_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="50 of 50 rows are asked for"):
        run_step(TrimTables(min_rows=50), asking(lookup(tmp_path, ITEMS, np.array([0])), [list(range(50))] * 100))


def test_trimming_without_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match="needs real requests"):
        run_step(TrimTables(), lookup(tmp_path, ITEMS, np.array([0])))
