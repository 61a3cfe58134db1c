from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from liftgate.core.errors import InputError
from liftgate.core.store import Store
from liftgate.runtime.session import SessionSettings, open_session

ADD = """
<ir_version: 10, opset_import: ["" : 20]>
agraph (float[batch] a, float[batch] b) => (float[batch] sum) { sum = Add(a, b) }
"""


def test_an_onnx_file_runs_as_it_lies(tmp_path: Path) -> None:
    onnx.save(onnx.parser.parse_model(ADD), tmp_path / "add.model")
    session = open_session(tmp_path / "add.model", SessionSettings(), store=Store(tmp_path))
    assert session.ref.runtime == "onnxruntime"
    assert [s.shape for s in session.signature.inputs] == [("rows",), ("rows",)]
    found = session.run({"a": np.array([1, 2], np.float32), "b": np.array([3, 4], np.float32)})
    assert found["sum"].tolist() == [4.0, 6.0]


def test_weights_without_code_are_to_be_exported_first(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"found a torch.save file; export it first: optimize export .*w.pt --name NAME"):
        open_session(tmp_path / "w.pt", SessionSettings(), store=Store(tmp_path))
