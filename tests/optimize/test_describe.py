from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.store import Store
from liftgate.optimize.describe import inspection_text
from liftgate.optimize.describe_cost import cost_text, flop_text, headline, tables_text
from liftgate.optimize.drawing import size_text, table_text, wrapped_items
from liftgate.optimize.inspection import inspect

from .onnx_text import cost

TOWERS = """(float[rows,400] user, float[rows,40] item, float[rows,t,2] history) => (score) <float[400,80] wu = {}, float[40,80] wi = {}> {
    u = MatMul(user, wu)
    i = MatMul(item, wi)
    score = Mul(u, i)
}"""


def test_one_line_says_what_a_request_costs_and_what_could_be_shared() -> None:
    found = cost(TOWERS, request="user history", candidates=256, dims={"t": 9})
    assert headline(found) == (
        "18.0 MFLOP per request of 256 candidates, t = 9: 16.4 MFLOP request-only (64.0 kFLOP if done once), 1.66 MFLOP per-candidate work"
    )


def test_unknown_roles_are_said_to_be_unknown_and_nothing_is_split() -> None:
    found = cost(TOWERS, candidates=1)
    text = cost_text(found, 120)
    assert text.startswith("70.5 kFLOP per request of 1 candidate, t = 50\n")
    assert "Roles are unknown: every input counts as a candidate input" in text
    assert "per-candidate │" not in text


def test_unknown_nodes_are_named_and_the_sum_is_a_lower_bound() -> None:
    found = cost("(float[rows,3] a) => (y) { b = Relu(a)  y = other.Mystery(b) }")
    text = cost_text(found, 200)
    assert text.startswith("at least 30 FLOP per request of 10 candidates")
    assert "Unknown, and in none of these sums: other:Mystery 'y' (nobody has described the cost of other:Mystery)" in text
    assert "ONNX Runtime cannot run it" in text


def test_the_costliest_nodes_have_their_share() -> None:
    text = cost_text(cost(TOWERS, request="user"), 120)
    first = next(line for line in text.splitlines() if line.startswith("│ MatMul"))
    assert [cell.strip() for cell in first.strip("│").split("│")] == ["MatMul", "u", "[10, 80]", "request-only", "640 k", "91%"]


def test_a_table_has_one_line() -> None:
    found = cost("(int64[rows] item) => (y) <float[30,8] items = {}> { y = Gather(items, item) }")
    row = tables_text(found.tables, 120).splitlines()[-2]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["items", "30", "8", "float32", "960 B", "item"]


@pytest.mark.parametrize(
    ("flops", "text"), [(0, "0 FLOP"), (999, "999 FLOP"), (12_345_678, "12.3 MFLOP"), (5 * 10**12, "5.00 TFLOP"), (999_600, "1.00 MFLOP")]
)
def test_flops_have_three_digits_and_a_unit(flops: int, text: str) -> None:
    assert flop_text(flops) == text


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_wider_than_the_terminal(exported: ModelArtifact, store: Store, width: int) -> None:
    text = inspection_text(inspect(exported, store=store), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for part in (
        "Inputs and outputs",
        "Embedding tables",
        "FLOP per request of 256 candidates",
        "operators: Gemm 4",
        "lineage:",
        "checks:",
    ):
        assert part in text


def test_an_onnx_file_has_no_lineage(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> m (float[n] x) => (float[n] score) { score = Relu(x) }')
    onnx.save(proto, tmp_path / "m.onnx")
    text = inspection_text(inspect(tmp_path / "m.onnx"))
    assert text.splitlines()[:2] == ["m.onnx, not in the store", "layout rows, roles unknown, opset 20"]
    assert "lineage" not in text


@pytest.mark.parametrize(("size", "text"), [(960, "960 B"), (1600, "1.56 KiB"), (1020 * 1024, "1020 KiB"), (3 * 2**30, "3.00 GiB")])
def test_sizes_have_three_digits_and_never_an_exponent(size: int, text: str) -> None:
    assert size_text(size) == text


def test_a_table_that_is_too_wide_shortens_its_flexible_columns_in_the_middle() -> None:
    text = table_text(("node", "flop"), [("layers.0.mlp.first.weight", "12"), ("w", "3")], 20, right=("flop",), flexible=("node",))
    lines = [line.strip("│") for line in text.splitlines()[-3:-1]]
    assert lines == [" la…weight │   12 ", " w         │    3 "]


def test_items_are_not_broken_over_lines() -> None:
    assert wrapped_items("operators", ["Gemm 4", "MatMul 2"], 20) == "operators: Gemm 4,\n  MatMul 2"


def test_ids_inside_a_matrix_are_shown_by_column(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]> m (float[n,3] x) => (float[n] score)
        <float[9,1] items = {}, int64[1] first = {0}, int64[1] second = {1}, int64[1] axis = {1}> {
            column = Slice(x, first, second, axis)
            id = Cast<to=7>(column)
            rows = Gather(items, id)
            flat = Squeeze(rows)
            score = Identity(flat)
        }"""
    )
    proto.graph.initializer[0].raw_data = bytes(36)
    onnx.save(proto, tmp_path / "m.onnx")
    seen = inspect(tmp_path / "m.onnx")
    row = next(line for line in inspection_text(seen).splitlines() if line.startswith("│ x "))
    assert row.strip("│").split("│")[-1].strip() == "9 in 1 column"
    assert seen.cost.tables[0].indexed_by == ("x",)
