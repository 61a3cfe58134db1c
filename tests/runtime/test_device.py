from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from liftgate.core.errors import InputError
from liftgate.core.session_defaults import SessionDefaults
from liftgate.runtime.onnx_session import OnnxSession
from liftgate.runtime.session import SessionSettings
from liftgate.runtime.torch_session import TorchSession, on_device
from onnx import parser

GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
twice (float[rows] x) => (float[rows] score) { score = Add (x, x) }
"""
CUDA = SessionSettings(device="cuda")


@pytest.fixture
def twice(tmp_path: Path) -> Path:
    onnx.save(parser.parse_model(GRAPH), tmp_path / "twice.onnx")
    return tmp_path / "twice.onnx"


class _Session:
    """An ONNX Runtime built with CUDA, whose provider starts only where `_Session.starts` says so."""

    starts = True

    def __init__(self, path: Path, options: ort.SessionOptions, *, providers: list[str]) -> None:
        self._providers = providers if self.starts else providers[1:]

    def get_providers(self) -> list[str]:
        return self._providers


@pytest.fixture
def with_cuda(monkeypatch: pytest.MonkeyPatch) -> type[_Session]:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort, "InferenceSession", _Session)
    return _Session


def test_a_device_is_kept_when_a_recipe_has_wishes() -> None:
    assert CUDA.over(SessionDefaults(threads=3)) == SessionSettings(threads=3, device="cuda")


def test_onnx_runtime_without_cuda_refuses_a_gpu_and_says_which_package_has_it(twice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match=r"with CUDAExecutionProvider, found onnxruntime .* with CPUExecutionProvider; .*onnxruntime-gpu"):
        OnnxSession.open_file(twice, CUDA)


def test_cuda_comes_first_and_is_believed_only_when_it_started(
    twice: Path, with_cuda: type[_Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert OnnxSession.open_file(twice, CUDA).ref.name == "twice"
    monkeypatch.setattr(with_cuda, "starts", False)
    with pytest.raises(InputError, match="expected CUDAExecutionProvider to start, found CPUExecutionProvider"):
        OnnxSession.open_file(twice, CUDA)


def test_on_cpu_no_other_provider_is_asked_for(twice: Path, with_cuda: type[_Session], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(with_cuda, "__init__", lambda self, path, options, providers: asked.extend(providers))
    monkeypatch.setattr(with_cuda, "get_providers", lambda self: asked)
    OnnxSession.open_file(twice, SessionSettings())
    assert asked == ["CPUExecutionProvider"]


class _Shifted(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + torch.arange(3)


@pytest.fixture
def shifted() -> torch.export.ExportedProgram:
    return torch.export.export(_Shifted(), (torch.zeros(4, 3),), dynamic_shapes={"x": {0: torch.export.Dim("rows")}})


def test_torch_without_a_gpu_refuses_one_and_says_how_it_was_built(
    tmp_path: Path, shifted: torch.export.ExportedProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.export.save(shifted, tmp_path / "shifted.pt2")
    with pytest.raises(InputError, match=r"expected a GPU for PyTorch, found torch "):
        TorchSession.open_file(tmp_path / "shifted.pt2", CUDA)


def test_a_program_moves_with_what_its_graph_creates(shifted: torch.export.ExportedProgram) -> None:
    # `meta` stands for a GPU: a tensor left on CPU would make the addition fail as it would there.
    moved = on_device(shifted, torch.device("meta")).module(check_guards=False)
    assert moved(torch.zeros(4, 3, device="meta")).device.type == "meta"
    assert on_device(shifted, torch.device("cpu")) is shifted


def test_a_session_on_cpu_computes_what_it_did(tmp_path: Path, shifted: torch.export.ExportedProgram) -> None:
    torch.export.save(shifted, tmp_path / "shifted.pt2")
    session = TorchSession.open_file(tmp_path / "shifted.pt2", SessionSettings(threads=1))
    assert session.run({"x": np.ones((2, 3), dtype=np.float32)})[session.signature.outputs[0].name].tolist() == [[1.0, 2.0, 3.0]] * 2
    assert (torch.get_num_threads(), torch.get_num_interop_threads()) == (1, 1)
