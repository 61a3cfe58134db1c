from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from liftgate.core.errors import InputError
from liftgate.optimize.export import export
from liftgate.runtime.archive import quiet
from torch import nn


def scores(model: Path, **feeds: np.ndarray) -> list[float]:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    found: list[float] = np.asarray(session.run(["score"], feeds)[0]).tolist()
    return found


class Branches(nn.Module):
    """Doubles its scores when the inputs sum to more than 10: a branch on tensor values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.sum(1)
        if bool(x.sum() > 10):
            total = total * 2
        return total


def test_a_branch_on_values_is_refused_with_its_line_and_kept_by_the_fallback(tmp_path: Path) -> None:
    example = (torch.rand(4, 3),)
    with pytest.raises(InputError, match=r"test_conversion.py:\d+ in Branches.forward: .*--fallback torchscript"):
        export(Branches(), name="branches", store=tmp_path, example_inputs=example)
    artifact = export(Branches(), name="branches", store=tmp_path, example_inputs=example, fallback="torchscript")
    assert scores(artifact.model_path, x=np.array([[1, 2, 3]], np.float32)) == [6.0]
    assert scores(artifact.model_path, x=np.array([[10, 2, 3]], np.float32)) == [30.0]
    assert "converted through TorchScript (scripted)" in artifact.manifest.steps[0].summary


class Numpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1) * float(np.exp(x.detach().numpy()).max())


def test_numpy_in_forward_is_refused_and_no_fallback_hides_it(tmp_path: Path) -> None:
    example = (torch.rand(4, 3),)
    with pytest.raises(InputError, match=r"test_conversion.py:\d+ in Numpy.forward: .*numpy") as refused:
        export(Numpy(), name="numpy", store=tmp_path, example_inputs=example)
    assert "--fallback" not in str(refused.value)
    with pytest.raises(InputError):
        export(Numpy(), name="numpy", store=tmp_path, example_inputs=example, fallback="torchscript")


class Recurrent(nn.Module):
    """A user tower over a padded history, its end found by packing."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(20, 4)
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, history: torch.Tensor, length: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(self.items(history), length, batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        found: torch.Tensor = (last[0] * self.items(item)).sum(1)
        return found


def recurrent_rows(rows: int, width: int = 6) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(rows)
    return torch.randint(0, 20, (rows, width)), torch.randint(1, width + 1, (rows,)), torch.randint(0, 20, (rows,))


def test_a_packed_sequence_goes_through_torchscript(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Recurrent()
    artifact = export(module, name="gru", store=tmp_path, example_inputs=recurrent_rows(4), fallback="torchscript")
    rows = recurrent_rows(9)
    feeds = dict(zip(("history", "length", "item"), (t.numpy() for t in rows), strict=True))
    with torch.no_grad():
        expected = module.eval()(*rows).tolist()
    assert scores(artifact.model_path, **feeds) == pytest.approx(expected, abs=1e-5)


def test_a_torchscript_archive_is_exported(tmp_path: Path) -> None:
    with quiet():
        torch.jit.save(torch.jit.script(Branches()), tmp_path / "m.ts")
    np.savez(tmp_path / "x.npz", x=np.ones((3, 2)))
    artifact = export(tmp_path / "m.ts", name="m", store=tmp_path / "store", example_inputs=tmp_path / "x.npz")
    assert scores(artifact.model_path, x=np.array([[10, 2]], np.float32)) == [24.0]
    assert artifact.manifest.source == "m.ts"


class Bags(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(20, 4, mode="mean", padding_idx=0)

    def forward(self, history: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.bag(history)
        return found.sum(1)


def test_an_embedding_bag_leaves_no_loop(tmp_path: Path) -> None:
    artifact = export(Bags(), name="bags", store=tmp_path, example_inputs=(torch.randint(0, 20, (4, 5)),))
    operators = {node.op_type for node in onnx.load(artifact.model_path).graph.node}
    assert not operators & {"Loop", "SequenceInsert", "ConcatFromSequence"}
    assert artifact.manifest.signature.input("history").shape == ("rows", "history_1")


class GuardedDivision(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1) / (x.abs().sum(1) + 1e-9)


def test_the_epsilon_of_a_division_survives(tmp_path: Path) -> None:
    artifact = export(GuardedDivision(), name="guarded", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    assert scores(artifact.model_path, x=np.zeros((2, 3), np.float32)) == [0.0, 0.0]


class Truncates(nn.Module):
    """Ids in a float matrix are cut to whole numbers, as DeepCTR's models do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.long().float().sum(1)


def test_a_cast_to_integers_and_back_survives(tmp_path: Path) -> None:
    artifact = export(Truncates(), name="truncates", store=tmp_path, example_inputs=(torch.tensor([[1.5, 2.5], [0.25, 3.0]]),))
    assert scores(artifact.model_path, x=np.array([[1.9, 2.2]], np.float32)) == [3.0]


class ReadsData(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.masked_fill(x.data.eq(0), 5.0).sum(1)


def test_reading_data_is_not_frozen_to_the_example(tmp_path: Path) -> None:
    artifact = export(ReadsData(), name="data", store=tmp_path, example_inputs=(torch.rand(4, 3),))
    assert scores(artifact.model_path, x=np.array([[0, 1, 2], [1, 1, 1]], np.float32)) == [8.0, 3.0]
