from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from liftgate.core.errors import InputError, UntrustedError
from liftgate.runtime.content import open_content
from liftgate.runtime.kinds import kind_of
from liftgate.runtime.weights import fit_names, read_weights
from safetensors.torch import save_file
from torch import nn


class Bomb:
    """Unpickling this writes a file, as a malicious checkpoint would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.marker, "ran"))


def state() -> dict[str, torch.Tensor]:
    """Tensors of many kinds: a transposed view, one expanded over a dimension, an empty one, a scalar, and two of one storage."""
    table = torch.arange(12.0).reshape(3, 4)
    return {
        "table": table,
        "turned": table.t(),
        "positions": torch.arange(5).expand(2, 5),
        "nothing": torch.zeros(0, 3),
        "scale": torch.tensor(3.0),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "flags": torch.tensor([True, False]),
    }


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype and torch.equal(found[name], tensor) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_state_dict_comes_back_from_every_format_of_torch_save(tmp_path: Path, zipped: bool, protocol: int) -> None:
    path = tmp_path / "w.pt"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert kind_of(path) == "torch.save file"
    found = read_weights(path)
    assert same(found, state())
    assert found["table"].untyped_storage().data_ptr() == found["turned"].untyped_storage().data_ptr()


def test_a_state_dict_comes_back_from_safetensors(tmp_path: Path) -> None:
    expected = {name: tensor.contiguous() for name, tensor in state().items() if name != "turned"}
    save_file(expected, tmp_path / "w.pt")
    assert kind_of(tmp_path / "w.pt") == "safetensors file"
    assert same(read_weights(tmp_path / "w.pt"), expected)


def test_tensors_saved_on_a_gpu_are_read_on_the_cpu(tmp_path: Path) -> None:
    body = io.BytesIO()
    torch.save({"w": torch.tensor([1.0, 2.0])}, body)
    with zipfile.ZipFile(body) as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    assert read_weights(tmp_path / "w.pt")["w"].tolist() == [1.0, 2.0]


def test_a_checkpoint_gives_its_only_state_dict_whatever_else_it_holds(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    marker = tmp_path / "ran"
    checkpoint = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "hyper_parameters": Bomb(marker)}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert same(read_weights(tmp_path / "last.ckpt"), dict(model.state_dict()))
    assert not marker.exists()


def test_two_state_dicts_in_one_file_are_not_guessed_between(tmp_path: Path) -> None:
    torch.save({"model": state(), "ema": state()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="expected one state_dict, found a checkpoint with the state_dicts 'model', 'ema'"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("saved", "found"),
    [
        ([1, 2], "a saved list"),
        (torch.ones(2), "a saved tensor"),
        ({"epoch": 3, "lr": 0.1}, r"a saved dict \(epoch, lr\)"),
        ({}, "a saved dict"),
    ],
)
def test_what_is_no_state_dict_is_named(tmp_path: Path, saved: object, found: str) -> None:
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(InputError, match=f"expected a state_dict .*, found {found};"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickled_objects_are_named_and_do_not_run(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "w.pt"
    torch.save(Bomb(tmp_path / "ran"), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedError, match=r"is a pickled pathlib\.Path, not a state_dict"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_a_value_among_the_tensors_that_needs_code_does_not_run(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "x": Bomb(tmp_path / "ran")}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"found a saved dict \(w, x\)"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def pickled(path: Path, old: bytes, new: bytes) -> Path:
    """The file of one float32 tensor [3, 4] with its pickle changed."""
    body = io.BytesIO()
    torch.save({"table": torch.zeros(3, 4)}, body)
    with zipfile.ZipFile(body) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            assert not name.endswith("data.pkl") or old in content
            after.writestr(name, content.replace(old, new) if name.endswith("data.pkl") else content)
    return path


SHAPE = b"K\x03K\x04\x86"
STRIDES = b"K\x04K\x01\x86"
COUNT = b"K\x0ctq"
HUGE = b"\x8a\x08" + (2**50).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (COUNT, HUGE + b"tq", r"expected 4503599627370496 bytes, found 48"),
        (SHAPE, b"K\x03K\x05\x86", r"'table': holds a tensor of shape \[3, 5\] that reaches outside its 12 stored values"),
        (SHAPE, HUGE + b"K\x04\x86", "reaches outside its 12 stored values"),
        (SHAPE + b"q\x08" + STRIDES, HUGE + b"K\x04\x86q\x08K\x00K\x01\x86", "expanded from 12 stored values"),
        (SHAPE, b"K\x0c\x85", "sizes and strides do not match"),
        (b"FloatStorage", b"QInt8Storage", "unknown type torch.QInt8Storage"),
        (b"K\x04K\x01\x86", b"J\xfc\xff\xff\xffK\x01\x86", "-4 where a count belongs"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path: Path, old: bytes, new: bytes, found: str) -> None:
    with pytest.raises(InputError, match=found):
        read_weights(pickled(tmp_path / "w.pt", old, new))


def test_a_pickle_cannot_ask_for_memory(tmp_path: Path) -> None:
    # bytearray(2**40), and a text that says it is 4 GiB long.
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (2**40).to_bytes(6, "little") + b"\x85R.")
    with pytest.raises(UntrustedError, match=r"is a pickled builtins\.bytearray"):
        read_weights(tmp_path / "a.pkl")
    (tmp_path / "b.pkl").write_bytes(b"\x80\x02X\xff\xff\xff\xffabc.")
    with pytest.raises(InputError, match="truncated or damaged pickle"):
        read_weights(tmp_path / "b.pkl")


def test_an_endless_nest_of_lists_is_no_list_of_lists(tmp_path: Path) -> None:
    nest: list[object] = []
    for _ in range(100):
        nest = [nest, nest]
    torch.save(nest, tmp_path / "nest.pt")
    with open_content(tmp_path / "nest.pt", "nest.pt") as content:
        assert content.what == "a saved list"
        with pytest.raises(UntrustedError):
            content.plain_values()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_truncated_file_is_one_clear_error(tmp_path: Path, zipped: bool, share: float) -> None:
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(500)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_weights(path)


def test_a_safetensors_header_that_lies_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(InputError, match="no readable safetensors file"):
        read_weights(path)


def test_a_plain_pickle_without_tensors_is_no_state_dict(tmp_path: Path) -> None:
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    assert kind_of(tmp_path / "w.pkl") == "pickle"
    with pytest.raises(InputError, match=r"found a saved dict \(a\)"):
        read_weights(tmp_path / "w.pkl")


def test_prefixes_of_wrappers_are_taken_off_where_only_one_fits() -> None:
    one = torch.ones(1)
    wanted = {"a.weight", "bias"}
    plain = {"a.weight": one, "bias": one}
    assert fit_names(plain, wanted).keys() == wanted
    assert fit_names({f"module.{name}": one for name in wanted}, wanted).keys() == wanted
    # Lightning keeps what else the training had (here a loss) beside the model.
    assert fit_names({"loss.scale": one, **{f"model.net.{name}": one for name in wanted}}, wanted).keys() == wanted
    both = {f"{arm}.{name}": one for arm in ("online", "target") for name in wanted}
    assert fit_names(both, wanted) == both
    assert fit_names({"module.a.weight": one}, wanted).keys() == {"module.a.weight"}


def test_an_ordered_state_dict_of_a_module_is_one(tmp_path: Path) -> None:
    torch.save(OrderedDict(state()), tmp_path / "w.pt")
    assert same(read_weights(tmp_path / "w.pt"), state())
