from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.export import export
from liftgate.optimize.export_checks import sides_of, verify
from liftgate.optimize.samples import Samples
from liftgate.runtime.archive import quiet
from torch import nn


def test_the_artifact_scores_as_the_module_does(exported: ModelArtifact, ranker: nn.Module, requests: Requests) -> None:
    session = ort.InferenceSession(exported.model_path, providers=["CPUExecutionProvider"])
    for feeds in requests.feeds(exported.manifest.signature):
        with torch.no_grad():
            expected = ranker(*(torch.from_numpy(feeds[name]) for name in ("user", "item", "history"))).numpy()
        np.testing.assert_allclose(session.run(["score"], feeds)[0], expected, atol=1e-5)


def test_roles_and_tables_are_read_from_requests_and_graph(exported: ModelArtifact) -> None:
    found = [(s.name, s.shape, s.role, s.rows_of_table) for s in exported.manifest.signature.inputs]
    assert found == [
        ("user", ("rows",), "request", 30),
        ("item", ("rows",), "candidate", 50),
        ("history", ("rows", "history_1"), "request", 50),
    ]


def test_what_was_checked_is_recorded(exported: ModelArtifact) -> None:
    assert [check.name for check in exported.manifest.checks] == [
        "same input, same output",
        "ONNX Runtime agrees with PyTorch at 1 row",
        "ONNX Runtime agrees with PyTorch at 2 rows",
        "ONNX Runtime agrees with PyTorch at 7 rows",
        "ONNX Runtime agrees with PyTorch at 256 rows",
        "ids outside their tables are refused by requests and the router",
        "ONNX Runtime agrees with PyTorch at history_1 = 5",
        "ONNX Runtime agrees with PyTorch at history_1 = 2",
        "ONNX Runtime agrees with PyTorch at history_1 = 3",
        "ONNX Runtime agrees with PyTorch at history_1 = 7",
        "ONNX Runtime agrees with PyTorch at history_1 = 12",
    ]
    assert all(check.passed for check in exported.manifest.checks)


def test_nothing_in_the_artifact_names_folders_of_this_machine(exported: ModelArtifact) -> None:
    content = b"".join(file.read_bytes() for file in exported.path.iterdir())
    assert str(Path(__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_exporting_the_same_model_again_gives_the_same_digest(
    exported: ModelArtifact, ranker: nn.Module, tmp_path: Path, requests: Requests
) -> None:
    assert export(ranker, name="again", store=tmp_path, requests=requests).manifest.digest == exported.manifest.digest


def test_an_archive_without_requests_says_that_roles_are_unknown(archive: Path, store: Store) -> None:
    artifact = export(archive, name="bare", store=store)
    assert {s.role for s in artifact.manifest.signature.inputs} == {"candidate"}
    assert "roles unknown" in artifact.manifest.steps[0].summary
    assert artifact.manifest.source == "v1.1.pt"


def test_an_onnx_file_becomes_an_artifact(exported: ModelArtifact, store: Store) -> None:
    artifact = export(exported.model_path, name="adopted", store=store, request_inputs=["user", "history"])
    assert [s.role for s in artifact.manifest.signature.inputs] == ["request", "candidate", "request"]
    assert [check.name for check in artifact.manifest.checks] == ["runs at 1 row", "runs at 2 rows", "runs at 7 rows", "runs at 256 rows"]


def test_a_fixed_number_of_rows_is_refused_with_the_fix(tmp_path: Path, store: Store) -> None:
    with quiet():
        torch.export.save(torch.export.export(nn.Linear(4, 1), (torch.zeros(3, 4),)), tmp_path / "fixed.pt")
    with pytest.raises(InputError, match=r"expected a leading dimension that varies \(rows\), found a fixed size of 3; .*dynamic_shapes"):
        export(tmp_path / "fixed.pt", name="fixed", store=store)


def test_an_unknown_column_is_refused_and_nothing_is_written(archive: Path, requests: Requests, tmp_path: Path) -> None:
    wrong = Requests(requests.table.rename_columns(["request_id", "user_id", "user", "itme", "history", "label"]), source="wrong.parquet")
    with pytest.raises(UnknownName, match="unknown column 'itme'; did you mean 'item'"):
        export(archive, name="wrong", store=tmp_path, requests=wrong)
    assert Store(tmp_path).names() == []
    assert list((tmp_path / "objects").iterdir()) == []


def test_a_model_that_gives_nan_is_refused(tmp_path: Path) -> None:
    class Nan(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - x).sum(1) / (x - x).sum(1)

    with pytest.raises(InputError, match="expected finite numbers from PyTorch, found NaN"):
        export(Nan(), name="nan", store=tmp_path, example_inputs=(torch.ones(2, 3),))
    assert Store(tmp_path).names() == []


def test_a_module_without_examples_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected example inputs .*--requests"):
        export(nn.Linear(2, 1), name="x", store=tmp_path)


class Constant:
    def __init__(self, value: float) -> None:
        self.value = value

    def run(self, feeds: object) -> dict[str, np.ndarray]:
        rows = len(feeds["x"])  # type: ignore[index]
        return {"score": np.full(rows, self.value + (0.01 if rows == 256 else 0.0))}


def test_a_difference_at_one_number_of_rows_is_named(exported: ModelArtifact) -> None:
    samples = Samples(pool={"x": np.zeros(4)}, note="rows")
    with pytest.raises(InputError, match=r"at 256 rows: output 'score': .*found a difference of 0.01"):
        verify(sides_of(_Flat(), Constant(1.0), exported.manifest.signature, samples, where="model"), samples)


class _Flat:
    def run(self, feeds: object) -> dict[str, np.ndarray]:
        return {"score": np.full(len(feeds["x"]), 1.0)}  # type: ignore[index]


def test_a_model_that_scores_pairs_of_rows_is_refused(tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x]).sum(1)

    with pytest.raises(InputError, match="expected 1 finite scores, one per row, found 2"):
        export(Pairs(), name="pairs", store=tmp_path, example_inputs=(torch.ones(2, 3),))


def test_varying_history_lengths_make_a_varying_dimension(ranker: nn.Module, requests: Requests, tmp_path: Path) -> None:
    histories = [(value or [])[: 4 + i % 3] for i, value in enumerate(requests.table["history"].to_pylist())]
    data = {name: requests.table[name].to_pylist() for name in requests.table.column_names} | {"history": histories}
    artifact = export(ranker, name="ragged", store=tmp_path, requests=Requests.of(data))
    assert artifact.manifest.signature.input("history").shape == ("rows", "history_1")
    dims = onnx.load(artifact.model_path).graph.input[2].type.tensor_type.shape.dim
    assert [d.dim_param for d in dims] == ["rows", "history_1"]


class Sums(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)


def test_candidates_with_lists_of_different_lengths_are_refused(tmp_path: Path) -> None:
    data: dict[str, Sequence[object]] = {"request_id": ["a"], "user_id": ["u"], "x": [[[1.0, 2.0], [3.0]]], "label": [[0.0, 1.0]]}
    with pytest.raises(InputError, match="column 'x': expected lists of one length within a request, found ragged lists"):
        export(Sums(), name="sums", store=tmp_path, requests=Requests.of(data))


def test_requests_without_a_column_for_any_input_are_refused(tmp_path: Path) -> None:
    data: dict[str, Sequence[object]] = {"request_id": ["a"], "user_id": ["u"], "label": [[0.0, 1.0]]}
    with pytest.raises(InputError, match=r"expected a column per input of Sums \(x\), found none of them"):
        export(Sums(), name="sums", store=tmp_path, requests=Requests.of(data))


class TakesDict(nn.Module):
    def forward(self, f: dict[str, torch.Tensor]) -> torch.Tensor:
        return f["x"].sum(1)


class TakesTuple(nn.Module):
    def forward(self, f: tuple[torch.Tensor]) -> torch.Tensor:
        return f[0].sum(1)


ROWS = {0: torch.export.Dim("rows", min=1)}


@pytest.mark.parametrize(
    ("module", "value", "shape", "named", "name"),
    [
        (TakesDict(), {"x": torch.ones(2, 3)}, {"x": ROWS}, False, "x"),
        (TakesDict(), {"x": torch.ones(2, 3)}, {"x": ROWS}, True, "x"),
        (TakesTuple(), (torch.ones(2, 3),), (ROWS,), False, "0"),
    ],
)
def test_an_archive_that_takes_containers_has_an_input_per_entry(
    tmp_path: Path, module: nn.Module, value: object, shape: object, *, named: bool, name: str
) -> None:
    args, kwargs = ((), {"f": value}) if named else ((value,), {})
    with quiet():
        torch.export.save(torch.export.export(module, args, kwargs=kwargs, dynamic_shapes={"f": shape}), tmp_path / "m.pt")
    artifact = export(tmp_path / "m.pt", name="m", store=tmp_path / "store")
    assert [s.name for s in artifact.manifest.signature.inputs] == [name]
    session = ort.InferenceSession(artifact.model_path, providers=["CPUExecutionProvider"])
    assert session.run(None, {name: np.array([[1, 2, 4]], np.float32)})[0].tolist() == [7.0]


class Nested(nn.Module):
    """Takes a dictionary with a tuple in it, a mask and a flag; returns two tasks by name."""

    def forward(self, f: dict[str, Any], mask: torch.Tensor, *, double: bool = False) -> dict[str, torch.Tensor]:
        weight, bias = f["pair"]
        taste = (f["ids"].float() * mask).sum(1) * weight
        return {"ctr": taste + bias, "both": torch.stack([taste, bias], 1) * (2 if double else 1)}


def nested_example() -> tuple[object, ...]:
    ids, mask = torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    return {"ids": ids, "pair": (torch.tensor([2.0, 3.0]), torch.tensor([0.5, 0.25]))}, mask


def test_nested_inputs_and_several_outputs_are_named_by_their_paths(tmp_path: Path) -> None:
    signature = export(Nested(), name="nested", store=tmp_path, example_inputs=nested_example()).manifest.signature
    assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [
        ("f.ids", "int64", ("rows", "f.ids_1")),
        ("f.pair.0", "float32", ("rows",)),
        ("f.pair.1", "float32", ("rows",)),
        ("mask", "float32", ("rows", "f.ids_1")),
    ]
    assert [(s.name, s.shape) for s in signature.outputs] == [("ctr", ("rows",)), ("both", ("rows", 2))]
    assert signature.score is not None
    assert signature.score.text == "ctr"


def test_a_module_with_nested_inputs_is_exported_from_requests_and_from_npz(tmp_path: Path) -> None:
    data: dict[str, Sequence[object]] = {
        "request_id": ["a", "b"],
        "user_id": ["u", "v"],
        "f.ids": [[1, 2, 3], [4, 5, 6]],
        "f.pair.0": [[2.0, 3.0], [1.0, 2.0, 3.0]],
        "f.pair.1": [[0.5, 0.25], [0.0, 1.0, 2.0]],
        "mask": [[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        "label": [[0.0, 1.0], [1.0, 0.0, 0.0]],
    }
    from_requests = export(Nested(), name="requests", store=tmp_path, requests=Requests.of(data)).manifest.signature
    assert {s.name: s.role for s in from_requests.inputs} == {
        "f.ids": "request",
        "f.pair.0": "candidate",
        "f.pair.1": "candidate",
        "mask": "request",
    }
    arrays: dict[str, Any] = {"f.ids": [[1, 2]], "f.pair.0": [1.0], "f.pair.1": [2.0], "mask": [[1.0, 0.0]]}
    np.savez(tmp_path / "inputs.npz", **arrays)
    from_npz = export(Nested(), name="npz", store=tmp_path, example_inputs=tmp_path / "inputs.npz").manifest.signature
    assert [s.name for s in from_npz.inputs] == [s.name for s in from_requests.inputs]


class Tasks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.sum(1), x.mean(1), x.max(1).values], 1)


def test_several_tasks_are_ranked_by_the_one_the_user_names(tmp_path: Path) -> None:
    plain = export(Tasks(), name="plain", store=tmp_path, example_inputs=(torch.rand(4, 3),)).manifest.signature
    assert plain.score is None
    with pytest.raises(InputError, match=r"expected an output with one score per row, found score \['rows', 3\]; export it with --score"):
        plain.scores({"score": np.ones((2, 3))}, where="m")
    chosen = export(Tasks(), name="chosen", store=tmp_path, example_inputs=(torch.rand(4, 3),), score="score[1]").manifest.signature
    assert chosen.scores({"score": np.array([[1, 2, 3], [4, 5, 6]])}, where="m").tolist() == [2.0, 5.0]
    with pytest.raises(InputError, match=r"--score score\[3\]: expected one number per row"):
        export(Tasks(), name="bad", store=tmp_path, example_inputs=(torch.rand(4, 3),), score="score[3]")


class Squeezes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1, keepdim=True).squeeze()


def test_a_row_that_pytorch_squeezes_away_is_kept_by_the_graph(tmp_path: Path) -> None:
    artifact = export(Squeezes(), name="squeezes", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    session = ort.InferenceSession(artifact.model_path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([[1, 2, 4]], np.float32)})[0].reshape(-1).tolist() == [7.0]


class BreaksAlone(nn.Module):
    """Runs on any number of rows but one, as squeezing and then asking for the second dimension does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unsqueeze(1).squeeze().sum(1)


def test_a_crash_at_one_row_in_pytorch_is_told_and_repaired(tmp_path: Path) -> None:
    artifact = export(BreaksAlone(), name="alone", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    (warning,) = artifact.manifest.warnings
    assert warning.startswith("PyTorch itself fails at 1 row (Dimension out of range")
    assert " on x [" in warning
    session = ort.InferenceSession(artifact.model_path, providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([[1, 2, 4]], np.float32)})[0].tolist() == [7.0]


class Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + torch.rand_like(x)).sum(1)


def test_random_numbers_in_forward_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"Random: PyTorch: .* differs between two runs on the same input; test_export.py:\d+ in Random.forward has random numbers",
    ):
        export(Random(), name="random", store=tmp_path, example_inputs=(torch.rand(4, 3),))


class WritesIntoInput(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x[:, 0] = 0
        return x.sum(1)


def test_a_forward_that_writes_into_its_input_is_compared_fairly(tmp_path: Path) -> None:
    artifact = export(WritesIntoInput(), name="writes", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    session = ort.InferenceSession(artifact.model_path, providers=["CPUExecutionProvider"])
    assert session.run(["score"], {"x": np.array([[1, 2, 4]], np.float32)})[0].tolist() == [6.0]


def test_a_model_that_scores_a_row_alone_otherwise_is_refused_with_the_reason(tmp_path: Path) -> None:
    class Ranks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1) + x.unsqueeze(1).squeeze().ndim

    with pytest.raises(InputError, match=r"Ranks: PyTorch: gives a single row another output than the same row among two, on x \["):
        export(Ranks(), name="ranks", store=tmp_path, example_inputs=(torch.rand(4, 3),))


def test_columns_that_never_vary_inside_a_request_are_suggested_as_request_inputs(
    ranker: nn.Module, requests: Requests, tmp_path: Path
) -> None:
    items = requests.table["item"].to_pylist()
    users = [[user] * len(listed or []) for user, listed in zip(requests.table["user"].to_pylist(), items, strict=True)]
    data = {name: requests.table[name].to_pylist() for name in requests.table.column_names} | {"user": users}
    artifact = export(ranker, name="v", store=tmp_path, requests=Requests.of(data))
    assert artifact.manifest.signature.input("user").role == "candidate"
    assert artifact.manifest.warnings == (
        "'user' never varies inside a request (in 12 requests): if that is no accident, export with --request-inputs history,user",
    )
    told = export(ranker, name="told", store=tmp_path, requests=Requests.of(data), request_inputs=["history", "user"])
    assert told.manifest.signature.input("user").role == "request"
    assert not [warning for warning in told.manifest.warnings if "never varies" in warning]


def test_scores_that_are_all_tiny_are_compared_by_their_spread(exported: ModelArtifact) -> None:
    signature = msgspec.structs.replace(exported.manifest.signature, inputs=())
    samples = Samples(pool={"x": np.linspace(0, 1, 256)}, note="rows")

    class Tiny:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"score": feeds["x"] * self.factor}

    near = sides_of(Tiny(1e-5), Tiny(1.001e-5), signature, samples, where="model")
    assert near.limit == pytest.approx(1e-7 + 1e-10)
    assert len(verify(near, samples).checks) == 5
    with pytest.raises(
        InputError, match=r"expected ranked scores within 1e-07 of PyTorch \(1 % of their spread\), found a difference of 1e-06"
    ):
        verify(sides_of(Tiny(1e-5), Tiny(1.1e-5), signature, samples, where="model"), samples)


def test_a_model_that_scores_every_row_alike_is_told(tmp_path: Path) -> None:
    class Alike(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1) * 0

    artifact = export(Alike(), name="alike", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    assert any("gives every row the same score" in warning for warning in artifact.manifest.warnings)


def test_a_module_keeps_the_mode_it_was_in(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    module[1].eval()
    export(module, name="modes", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    assert [part.training for part in module] == [True, False, True]
    assert module.training


def test_a_model_whose_rows_depend_on_one_another_is_told(tmp_path: Path) -> None:
    class Centred(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(1) - x.sum(1).mean()

    rows = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0], [9.0, 9.0, 9.0]])
    artifact = export(Centred(), name="centred", store=tmp_path, example_inputs=(rows,))
    assert any("depends on the other rows" in warning for warning in artifact.manifest.warnings)


def test_the_same_model_from_elsewhere_says_what_this_export_did(ranker: nn.Module, requests: Requests, tmp_path: Path) -> None:
    first = export(ranker, name="first", store=tmp_path, requests=requests)
    assert "roles from the columns of the requests" in first.manifest.steps[0].summary
    told = export(ranker, name="told", store=tmp_path, requests=requests, request_inputs=["user", "history"])
    assert told.manifest.digest == first.manifest.digest
    assert "roles as given" in told.manifest.steps[0].summary
    assert told.manifest.warnings[-1].startswith("the store already holds this very model, exported from Ranker; `optimize inspect`")


class BranchesOnLength(nn.Module):
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h.float().mean(1) if h.shape[1] > 3 else h.float().amax(1) * 3


def test_a_branch_on_a_length_gives_the_varying_length_up(tmp_path: Path) -> None:
    artifact = export(BranchesOnLength(), name="branches", store=tmp_path, example_inputs=(torch.randint(0, 9, (4, 5)),))
    assert artifact.manifest.signature.input("h").shape == ("rows", 5)
    assert any("sizes besides rows are fixed" in warning for warning in artifact.manifest.warnings)


def test_a_reversed_ranking_far_from_zero_is_refused(exported: ModelArtifact) -> None:
    signature = msgspec.structs.replace(exported.manifest.signature, inputs=())
    samples = Samples(pool={"x": np.linspace(-1e-3, 1e-3, 256)}, note="rows")

    class Shifted:
        def __init__(self, sign: float) -> None:
            self.sign = sign

        def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"score": 3.5 + self.sign * feeds["x"]}

    with pytest.raises(InputError, match="expected ranked scores within"):
        verify(sides_of(Shifted(1), Shifted(-1), signature, samples, where="model"), samples)


def test_an_onnx_file_with_weights_beside_it_is_taken_with_them(exported: ModelArtifact, tmp_path: Path) -> None:
    onnx.save(onnx.load(exported.model_path), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=200)
    adopted = export(tmp_path / "m.onnx", name="adopted", store=tmp_path / "store")
    assert [file.name for file in adopted.path.iterdir() if file.suffix != ".json"] == ["model.onnx"]
