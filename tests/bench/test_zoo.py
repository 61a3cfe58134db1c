from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from liftgate.bench.zoo.case import Case
from liftgate.bench.zoo.draw import Draw
from liftgate.bench.zoo.outcome import Compared, Outcome, Verdict
from liftgate.bench.zoo.run import run_one
from liftgate.bench.zoo.table import render
from liftgate.bench.zoo.verify import Disagreement, nodes_of, verify


class Total(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.sum(dim=1)


class TotalOfSeveral(torch.nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if len(values) == 1:
            raise ValueError("one row")
        return values.sum(dim=1)


def case_of(build: type[torch.nn.Module]) -> Case:
    return Case(name="Total", package="ours", kind="ranking", build=build, inputs=lambda draw: (draw.dense(draw.width),))


def graph(path: Path, body: str, width: str = "10") -> Path:
    head = f'<ir_version: 8, opset_import: ["" : 18]> g (float[rows, {width}] v) => (float[rows] y)'
    onnx.save(onnx.parser.parse_model(f"{head} {{ axis = Constant<value_ints=[1]>() {body} }}"), path)
    return path


SUM = "y = ReduceSum<keepdims=0>(v, axis)"


def test_a_file_that_says_the_same_is_equal_at_every_number_of_rows(tmp_path: Path) -> None:
    found = verify(graph(tmp_path / "m.onnx", SUM), case_of(Total))
    assert [c.rows for c in found] == [1, 1, 1, 2, 2, 2, 7, 7, 7, 64, 64, 64]
    assert max(c.difference for c in found) < 1e-5


def test_a_history_that_varies_is_compared_at_shorter_lengths_too(tmp_path: Path) -> None:
    found = verify(graph(tmp_path / "m.onnx", SUM, width="length"), case_of(Total))
    assert [(c.rows, c.history) for c in found[-2:]] == [(7, 6), (7, 3)]


def test_a_file_that_is_off_by_half_a_percent_is_noticed(tmp_path: Path) -> None:
    off = "s = ReduceSum<keepdims=0>(v, axis) f = Constant<value_float=1.005>() y = Mul(s, f)"
    with pytest.raises(Disagreement, match="output 0 differs by"):
        verify(graph(tmp_path / "m.onnx", off), case_of(Total))


def test_where_pytorch_fails_on_one_row_the_first_of_two_counts(tmp_path: Path) -> None:
    found = verify(graph(tmp_path / "m.onnx", SUM), case_of(TotalOfSeveral))
    assert [bool(c.against) for c in found] == [True] * 3 + [False] * 9


def test_nodes_are_counted(tmp_path: Path) -> None:
    assert nodes_of(graph(tmp_path / "m.onnx", SUM)) == 2


def test_histories_hold_their_true_length_and_then_zeros() -> None:
    draw = Draw(rows=5, seed=3)
    history = draw.history(200)
    assert (history > 0).sum(dim=1).tolist() == draw.lengths.tolist()
    assert draw.lengths[:2].tolist() == [10, 1]
    assert (history[1, 1:] == 0).all()


def test_a_process_that_dies_costs_its_own_row_only() -> None:
    outcome = run_one(case_of(Total))  # its package is in no catalogue
    assert outcome.verdict == "crashed"
    assert outcome.reason == "exit 1: KeyError: 'ours'"


def test_the_page_counts_every_outcome_and_keeps_cells_on_one_line() -> None:
    def outcome(name: str, verdict: Verdict, reason: str = "") -> Outcome:
        compared = (Compared(rows=7, history=10, difference=2e-7), Compared(rows=1, history=10, difference=1e-7))
        return Outcome(package="ours", name=name, kind="ranking", verdict=verdict, reason=reason, compared=compared)

    outcomes = [outcome("A", "equal"), outcome("B", "equal"), outcome("C", "refused", "a | b\n  <c>"), outcome("D", "crashed", "x " * 200)]
    page = render(outcomes, ["torch 2"], "make bench")
    assert "| ours | 4 | 2 | 1 | 0 | 1 | 50 % | 0 |" in page
    assert "| A | ranking | equal | 1, 7 rows; differs by at most 2e-07 |  |  |" in page
    assert "| C | ranking | refused | a \\| b &lt;c> |" in page
    assert max(len(line) for line in page.splitlines() if line.startswith("| D")) < 340
