from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from liftgate.core.errors import InputError, UnknownName, UntrustedError
from liftgate.optimize.loading import Module, Script, load_source
from liftgate.runtime.archive import quiet
from safetensors.torch import save_file
from torch import nn

FACTORY = "from torch import nn\n\ndef make_model():\n    return nn.Linear(3, 1)\n\ndef broken():\n    raise ValueError('no data')\n"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(FACTORY)
    return path


def test_a_state_dict_goes_into_the_factorys_model(code: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save({"weight": torch.tensor([[1.0, 2.0, 3.0]]), "bias": torch.tensor([4.0])}, weights)
    source = load_source(f"{code}:make_model", weights=weights)
    assert isinstance(source, Module)
    assert source.source == "train.py:make_model"
    assert source.module(torch.ones(3)).item() == 10.0


def test_a_bare_state_dict_asks_for_its_factory(tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"found a state_dict \(weights without code\); .*--weights w.pt"):
        load_source(tmp_path / "w.pt")


def test_safetensors_and_wrapped_weights_go_into_the_factorys_model(code: Path, tmp_path: Path) -> None:
    state = {"weight": torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float16), "bias": torch.tensor([4.0], dtype=torch.float16)}
    save_file(state, tmp_path / "w.safetensors")
    lightning = {"epoch": 3, "state_dict": {f"model.{name}": tensor for name, tensor in state.items()}}
    torch.save(lightning, tmp_path / "last.ckpt")
    for weights in (tmp_path / "w.safetensors", tmp_path / "last.ckpt"):
        source = load_source(f"{code}:make_model", weights=weights)
        assert isinstance(source, Module)
        assert source.module(torch.ones(3)).item() == 10.0


def test_bare_safetensors_ask_for_their_factory(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"found a safetensors file \(weights without code\); .*--weights w.safetensors"):
        load_source(tmp_path / "w.safetensors")


def test_a_checkpoint_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"weight": torch.ones(1)}}, tmp_path / "last.ckpt")
    with pytest.raises(InputError, match=r"found a checkpoint with the state_dict 'state_dict'; .*--weights last.ckpt"):
        load_source(tmp_path / "last.ckpt")


def test_weights_of_another_model_are_refused(code: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(5, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"does not fit .*size mismatch"):
        load_source(f"{code}:make_model", weights=tmp_path / "w.pt")


def test_a_pickled_module_is_refused_unless_trusted(tmp_path: Path) -> None:
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(2, 1), path)
    with pytest.raises(UntrustedError, match=r"execute code it contains; .*`optimize export module.pt --trust-pickle`"):
        load_source(path)
    trusted = load_source(path, trust_pickle=True)
    assert isinstance(trusted, Module)
    assert isinstance(trusted.module, nn.Linear)


def test_a_legacy_pickle_is_refused_without_running(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    body = f"cpathlib\nPath.write_text\n(cpathlib\nPath\n(V{marker}\ntRVran\ntR.".encode()
    path = tmp_path / "evil.pt"
    path.write_bytes(b"\x80\x02" + body)
    with pytest.raises(UntrustedError):
        load_source(path)
    assert not marker.exists()


def test_a_torchscript_archive_and_a_script_in_memory_are_scripts(tmp_path: Path) -> None:
    with quiet():
        script = torch.jit.script(nn.Linear(2, 1))
        script.save(tmp_path / "script.bin")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    for source in (load_source(tmp_path / "script.bin"), load_source(script)):
        assert isinstance(source, Script)
        assert source.module(torch.ones(3, 2)).shape == (3, 1)


@pytest.mark.parametrize("content", [b"hello world", b"PK\x03\x04garbage", b"\x80\x02garbage", b""])
def test_garbage_is_one_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_state_dict_is_an_input_error(code: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(300, 1).state_dict(), tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:-200])
    with pytest.raises(InputError, match="truncated or damaged"):
        load_source(f"{code}:make_model", weights=tmp_path / "w.pt")


def test_an_unknown_factory_suggests_one(code: Path) -> None:
    with pytest.raises(UnknownName, match=r"unknown factory 'make_modle'; did you mean 'make_model'\?"):
        load_source(f"{code}:make_modle")


def test_a_failing_factory_says_why(code: Path) -> None:
    with pytest.raises(InputError, match="failed with ValueError: no data"):
        load_source(f"{code}:broken")


def test_a_folder_or_a_pipe_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found a folder"):
        load_source(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="found a device or pipe"):
        load_source(tmp_path / "pipe")


def test_a_missing_file_is_an_input_error() -> None:
    with pytest.raises(InputError, match="expected a model file, found nothing"):
        load_source("nope.pt")
