from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.agreement import agree
from liftgate.optimize.export import export
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
        ("history", ("rows", 6), "request", 50),
    ]


def test_agreement_is_recorded_for_one_two_and_256_rows(exported: ModelArtifact) -> None:
    assert [check.name.split()[-2] for check in exported.manifest.checks] == ["1", "2", "256"]
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
    assert [check.name for check in artifact.manifest.checks] == ["runs at 1 rows", "runs at 2 rows", "runs at 256 rows"]


def test_a_fixed_number_of_rows_is_refused_with_the_fix(tmp_path: Path, store: Store) -> None:
    with quiet():
        torch.export.save(torch.export.export(nn.Linear(4, 1), (torch.zeros(3, 4),)), tmp_path / "fixed.pt")
    with pytest.raises(InputError, match=r"expected a leading dimension that varies \(rows\), found a fixed size of 3; .*dynamic_shapes"):
        export(tmp_path / "fixed.pt", name="fixed", store=store)


def test_an_unknown_column_is_refused_and_nothing_is_written(archive: Path, requests: Requests, tmp_path: Path) -> None:
    wrong = Requests(requests.table.rename_columns(["request_id", "user_id", "user", "itme", "history", "label"]), source="wrong.parquet")
    with pytest.raises(UnknownName, match="unknown column 'item'"):
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
    with pytest.raises(InputError, match=r"output 'score' at 256 rows: .*found a difference of 0.01"):
        agree(_Flat(), Constant(1.0), samples, exported.manifest.signature, "model")


class _Flat:
    def run(self, feeds: object) -> dict[str, np.ndarray]:
        return {"score": np.full(len(feeds["x"]), 1.0)}  # type: ignore[index]


def test_a_model_that_scores_pairs_of_rows_is_refused(tmp_path: Path) -> None:
    class Pairs(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x]).sum(1)

    with pytest.raises(InputError, match="expected 1 scores, one per row, found 2"):
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
    ("module", "value", "shape", "named", "found"),
    [
        (TakesDict(), {"x": torch.ones(2, 3)}, {"x": ROWS}, False, "argument 1 as a dict"),
        (TakesDict(), {"x": torch.ones(2, 3)}, {"x": ROWS}, True, "argument 'f' as a dict"),
        (TakesTuple(), (torch.ones(2, 3),), (ROWS,), False, "argument 1 as a tuple"),
    ],
)
def test_a_forward_that_takes_containers_is_refused(
    tmp_path: Path, module: nn.Module, value: object, shape: object, *, named: bool, found: str
) -> None:
    args, kwargs = ((), {"f": value}) if named else ((value,), {})
    with quiet():
        torch.export.save(torch.export.export(module, args, kwargs=kwargs, dynamic_shapes={"f": shape}), tmp_path / "m.pt")
    with pytest.raises(InputError, match=f"expected a forward that takes tensors by name .*found {found}; wrap the model"):
        export(tmp_path / "m.pt", name="m", store=tmp_path / "store")
