from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from liftgate.optimize.rewrites.bag_loops import rewrite_graph
from liftgate.optimize.rewrites.embedding_bag import rewrite_program
from liftgate.optimize.rewrites.row_loops import warn_row_loops
from liftgate.runtime.archive import quiet
from torch import nn

ROWS = (1, 2, 7, 256)
PADDING = 3
# Mode, padding index, and whether the vectors are scaled (`per_sample_weights`, for sums only).
Case = tuple[str, int | None, bool]
PLAIN: tuple[Case, ...] = (("sum", None, False), ("mean", None, False), ("max", None, False), ("sum", None, True))
CASES: tuple[Case, ...] = (*PLAIN, ("sum", PADDING, False), ("mean", PADDING, False), ("max", PADDING, False), ("sum", PADDING, True))


class Bags(nn.Module):
    """One EmbeddingBag per case, their results side by side."""

    def __init__(self, cases: Sequence[Case], *, last_offset: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.scaled = [scaled for _, _, scaled in cases]
        self.bags = nn.ModuleList(
            nn.EmbeddingBag(10, 4, mode=mode, padding_idx=padding, include_last_offset=last_offset) for mode, padding, _ in cases
        )
        with torch.no_grad():  # the padding row too: nobody may count on it being zero
            for parameter in self.parameters():
                parameter.normal_()

    def found(self, ids: torch.Tensor, offsets: torch.Tensor | None, scales: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.bags, self.scaled, strict=True)
        return torch.cat([bag(ids, offsets, per_sample_weights=scales if scaled else None) for bag, scaled in pairs], -1)


class Matrix(Bags):
    """One bag per row of a matrix."""

    def forward(self, ids: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return self.found(ids, None, scales)


class Offsets(Bags):
    """Bags of any length, empty ones too."""

    def forward(self, ids: torch.Tensor, offsets: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return self.found(ids, offsets, scales)


def matrix(rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, of which the last row is padding only, and scales."""
    torch.manual_seed(rows)
    ids = torch.randint(0, 10, (rows, length))
    ids[-1] = PADDING
    return ids, torch.randn(rows, length)


def bags(rows: int, count: int, *, last_offset: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, ascending offsets and scales; 256 bags of 40 ids are mostly empty."""
    torch.manual_seed(rows)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(0, count + 1, (rows - 1,)).sort().values])
    offsets = torch.cat([offsets, torch.tensor([count])]) if last_offset else offsets
    return torch.randint(0, 10, (count,)), offsets, torch.randn(count)


def exported(module: nn.Module, inputs: Sequence[torch.Tensor]) -> torch.export.ExportedProgram:
    """Every dimension dynamic."""
    shapes = tuple(dict.fromkeys(range(tensor.ndim), torch.export.Dim.AUTO) for tensor in inputs)
    with quiet():
        return torch.export.export(module.eval(), tuple(inputs), dynamic_shapes=shapes, strict=False)


def converted(program: torch.export.ExportedProgram) -> ir.Model:
    with quiet():
        found = torch.onnx.export(program, (), dynamo=True, verbose=False)
    assert found is not None
    return ir.from_proto(found.model_proto)


def loops(model: ir.Model) -> int:
    return sum(node.op_type == "Loop" for node in model.graph.all_nodes())


def session(model: ir.Model) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])


def assert_equal(module: nn.Module, model: ir.Model, requests: Sequence[Sequence[torch.Tensor]]) -> None:
    running = session(model)
    for inputs in requests:
        with torch.no_grad():
            expected = module(*inputs).numpy()
        feeds = {spec.name: tensor.numpy() for spec, tensor in zip(running.get_inputs(), inputs, strict=True)}
        np.testing.assert_allclose(running.run(None, feeds)[0], expected, rtol=1e-5, atol=2e-5)


def test_bags_of_a_matrix_become_a_lookup_and_a_reduction() -> None:
    module = Matrix(CASES)
    program, notes = rewrite_program(exported(module, matrix(7, 5)))
    model = converted(program)
    assert notes.done[1] == "EmbeddingBag 'embedding_bag_1' (mean) written as a lookup and a reduction"
    assert (len(notes.done), notes.warnings, loops(model)) == (8, (), 0)
    lookups = [node.op_type for node in model.graph if node.op_type.startswith(("Gather", "Scatter"))]
    assert lookups == ["Gather"] * 8
    assert_equal(module, model, [matrix(rows, length) for rows in ROWS for length in (1, 5, 9)])


@pytest.mark.parametrize("last_offset", [False, True])
def test_bags_given_by_offsets_become_a_scatter_and_empty_ones_are_zero(last_offset: bool) -> None:
    module = Offsets(CASES, last_offset=last_offset)
    program, notes = rewrite_program(exported(module, bags(4, 12, last_offset=last_offset)))
    model = converted(program)
    assert notes.done[2] == "EmbeddingBag 'embedding_bag_2' (max) written as a lookup and a scatter over its offsets"
    assert (len(notes.done), notes.warnings, loops(model)) == (8, (), 0)
    assert_equal(module, model, [bags(rows, count, last_offset=last_offset) for rows in ROWS for count in (1, 40, 600)])


def test_padding_is_not_counted_in_a_mean_and_a_bag_of_padding_only_is_zero() -> None:
    module = Matrix([("mean", PADDING, False)])
    with torch.no_grad():
        next(module.parameters()).copy_(torch.arange(10.0).unsqueeze(1).expand(10, 4))
    running = session(converted(rewrite_program(exported(module, matrix(7, 5)))[0]))
    ids = np.array([[3, 3, 3], [3, 4, 8], [1, 1, 7]])
    assert running.run(None, {running.get_inputs()[0].name: ids, "scales": np.ones((3, 3), np.float32)})[0][:, 0].tolist() == [
        0.0,
        6.0,
        3.0,
    ]


def test_a_program_without_bags_is_given_back_as_it_is() -> None:
    program = exported(nn.Linear(3, 1), (torch.rand(4, 3),))
    assert rewrite_program(program)[0] is program


def test_rewriting_leaves_the_given_program_alone_and_gives_one_that_runs() -> None:
    module = Matrix([("max", PADDING, False)])
    program = exported(module, matrix(7, 5))
    before = str(program.graph)
    rewritten, _ = rewrite_program(program)
    assert str(program.graph) == before
    assert torch.equal(rewritten.module()(*matrix(9, 4)), module(*matrix(9, 4)))


def test_loops_over_the_rows_of_a_matrix_are_undone_in_a_file_of_the_newer_exporter(tmp_path: Path) -> None:
    module = Matrix(CASES)
    ir.save(converted(exported(module, matrix(7, 5))), tmp_path / "m.onnx")
    model = ir.load(tmp_path / "m.onnx")
    assert loops(model) == 12  # an inner one each where there is padding
    notes = rewrite_graph(model)
    assert (len(notes.done), notes.warnings, loops(model)) == (8, (), 0)
    assert_equal(module, model, [matrix(rows, length) for rows in ROWS for length in (1, 5, 9)])


@pytest.mark.parametrize("opset", [13, 18])
def test_loops_over_the_rows_of_a_matrix_are_undone_in_a_file_of_the_older_exporter(opset: int, tmp_path: Path) -> None:
    module = Matrix(PLAIN)
    model = older(module, matrix(7, 5), opset, tmp_path)
    assert loops(model) == 4
    notes = rewrite_graph(model)
    assert notes.done[1] == "Loop '/bags.1/Loop' (EmbeddingBag, mean) written as a lookup and a reduction"
    assert (len(notes.done), notes.warnings, loops(model)) == (4, (), 0)
    assert_equal(module, model, [matrix(rows, length) for rows in ROWS for length in (1, 5, 9)])


def test_a_loop_over_offsets_stays_and_is_named(tmp_path: Path) -> None:
    model = older(Offsets(PLAIN[:2]), bags(4, 12, last_offset=False), 18, tmp_path)
    notes = rewrite_graph(model)
    assert (notes.done, loops(model)) == ((), 2)
    assert notes.warnings[1] == "Loop '/bags.1/Loop' runs once per row: its latency grows with every candidate"


@pytest.mark.parametrize("change", ["bags overlap", "another reduction"])
def test_a_loop_that_computes_something_else_is_left_alone(change: str, tmp_path: Path) -> None:
    model = older(Matrix(PLAIN[:1]), matrix(7, 5), 18, tmp_path)
    if change == "bags overlap":
        one = next(node.outputs[0] for node in model.graph if node.op_type == "Constant" and node.name == "/bags.0/Constant")
        next(node for node in model.graph if node.op_type == "Range").replace_input_with(2, one)
    else:
        next(node for node in model.graph.all_nodes() if node.op_type == "ReduceSum").op_type = "ReduceProd"
    notes = rewrite_graph(model)
    assert notes.done == ()
    assert notes.warnings == ("Loop '/bags.0/Loop' runs once per row: its latency grows with every candidate",)


def older(module: nn.Module, inputs: Sequence[torch.Tensor], opset: int, folder: Path) -> ir.Model:
    """As PyTorch's TorchScript exporter writes it, every dimension dynamic."""
    names = ["ids", "scales"] if len(inputs) == 2 else ["ids", "offsets", "scales"]
    axes = {name: {0: "rows", 1: "length"} if tensor.ndim == 2 else {0: f"{name}_0"} for name, tensor in zip(names, inputs, strict=True)}
    with quiet():
        torch.onnx.export(
            module.eval(), tuple(inputs), folder / "m.onnx", dynamo=False, input_names=names, dynamic_axes=axes, opset_version=opset
        )
    return ir.load(folder / "m.onnx")


LOOP = """
<ir_version: 10, opset_import: ["" : 18]>
ranker (float[rows, 4] x, float[rows, length] history) => (float score) {
    shape = Shape (TENSOR)
    axis = Constant <value = int64 {AXIS}> ()
    trips = Gather (shape, axis)
    go = Constant <value = bool {1}> ()
    zero = Constant <value = float {0.0}> ()
    score = Loop (trips, go, zero) <body = body (int64 i, bool c, float sum) => (bool go_on, float more) {
        go_on = Identity (c)
        one = Constant <value = float {1.0}> ()
        more = Add (sum, one)
    }>
}
"""


@pytest.mark.parametrize(
    ("tensor", "axis", "count"),
    [("x", 0, 1), ("history", 1, 0), ("x", 1, 0)],
)
def test_only_loops_whose_trips_are_the_rows_are_warned_about(tensor: str, axis: int, count: int) -> None:
    model = ir.from_onnx_text(LOOP.replace("TENSOR", tensor).replace("AXIS", str(axis)))
    assert len(warn_row_loops(model)) == count
