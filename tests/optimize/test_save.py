from __future__ import annotations

import zipfile
from pathlib import Path

import liftgate
import numpy as np
import pytest
import torch
from liftgate.core.errors import InputError, UnknownName
from liftgate.optimize.export import export
from liftgate.runtime.archive import quiet
from liftgate.runtime.description import read_description
from liftgate.runtime.session import SessionSettings
from liftgate.runtime.torch_session import TorchSession
from torch import nn

from .conftest import HISTORY, Ranker


@pytest.fixture
def saved(ranker: Ranker, tmp_path: Path) -> Path:
    example = {"user": torch.tensor([1, 2]), "item": torch.tensor([3, 4]), "history": torch.randint(0, 50, (2, HISTORY))}
    return liftgate.save(ranker, example, tmp_path / "v1.1.pt2", request_inputs=["user", "history"])


def test_a_saved_model_needs_nothing_else_to_be_exported(saved: Path, tmp_path: Path) -> None:
    artifact = export(saved, name="v1.1", store=tmp_path / "store")
    assert {s.name: s.role for s in artifact.manifest.signature.inputs} == {"user": "request", "item": "candidate", "history": "request"}
    assert artifact.manifest.signature.input("history").shape == ("rows", "history_1")
    assert "roles as saved with the model" in artifact.manifest.steps[0].summary
    assert "example inputs saved with the model" in artifact.manifest.checks[1].detail


def test_nothing_in_a_saved_model_is_a_pickle(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert not [name for name, content in found.items() if content.startswith((b"\x80", b"PK"))]
    assert not [name for name in found if name.endswith((".pkl", ".pt")) and found[name]]


def test_pytorch_reads_what_was_saved(saved: Path, ranker: Ranker) -> None:
    with quiet():
        program = torch.export.load(saved)
    rows = (torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6]), torch.randint(0, 50, (3, HISTORY)))
    torch.testing.assert_close(program.module()(*rows), ranker(*rows))


def test_a_saved_model_runs_in_pytorch_with_its_roles(saved: Path, ranker: Ranker) -> None:
    session = TorchSession.open_file(saved, SessionSettings())
    assert [s.role for s in session.signature.inputs] == ["request", "candidate", "request"]
    feeds = {"user": np.array([1, 2]), "item": np.array([3, 4]), "history": np.zeros((2, 4), np.int64)}
    with torch.no_grad():
        expected = ranker(*(torch.from_numpy(array) for array in feeds.values())).numpy()
    np.testing.assert_allclose(session.run(feeds)["score"], expected, rtol=1e-5)


def test_example_inputs_survive_exactly(saved: Path) -> None:
    description = read_description(saved)
    assert description.examples["item"].array("saved").tolist() == [3, 4, 3, 4, 3, 4, 3]
    assert description.examples["item"].array("saved").dtype == np.int64


def test_a_request_input_that_does_not_exist_is_refused_and_nothing_is_written(ranker: Ranker, tmp_path: Path) -> None:
    example = (torch.tensor([1]), torch.tensor([3]), torch.randint(0, 50, (1, HISTORY)))
    with pytest.raises(UnknownName, match="unknown request input 'usr'; did you mean 'user'"):
        liftgate.save(ranker, example, tmp_path / "m.pt2", request_inputs=["usr"])
    assert list(tmp_path.iterdir()) == []


def test_the_score_of_several_tasks_is_saved(tmp_path: Path) -> None:
    class Tasks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.sum(1), x.mean(1)], 1)

    path = liftgate.save(Tasks(), (torch.rand(3, 4),), tmp_path / "m.pt2", score="score[1]")
    score = export(path, name="m", store=tmp_path / "store").manifest.signature.score
    assert score is not None
    assert score.text == "score[1]"


def test_a_damaged_description_is_one_input_error(saved: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            new.writestr(name, b'{"version": 1, "rolls": {}}' if name.endswith("liftgate.json") else old.read(name))
    with pytest.raises(InputError, match="its description is damaged"):
        read_description(bad)
