from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from liftgate.core.errors import InputError, UntrustedError
from liftgate.runtime.archive import open_archive, quiet
from liftgate.runtime.kinds import kind_of
from liftgate.runtime.session import SessionSettings
from liftgate.runtime.torch_session import TorchSession
from torch import nn

Edit = Callable[[bytes], bytes]


class Ranker(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.top = nn.Linear(4, 1)

    def forward(self, item: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        score: torch.Tensor = self.top(self.table(item)) * weight.unsqueeze(1)
        return score.squeeze(1)


class Bomb:
    """Unpickling this writes a file, as a malicious archive would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (self.marker, "ran"))


@pytest.fixture(scope="module")
def module() -> Ranker:
    torch.manual_seed(0)
    return Ranker().eval()


@pytest.fixture(scope="module")
def archive(module: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "model.pt"
    rows = torch.export.Dim("rows", min=1)
    example = (torch.tensor([1, 2, 3]), torch.tensor([1.0, 2.0, 0.5]))
    with quiet():
        torch.export.save(torch.export.export(module, example, dynamic_shapes=({0: rows}, {0: rows})), path)
    return path


def edited(source: Path, target: Path, edits: dict[str, Edit], *, extra: dict[str, bytes] | None = None) -> Path:
    """A copy of an archive with members changed and added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            short = name.partition("/")[2]
            content = old.read(name)
            new.writestr(name, edits[short](content) if short in edits else content)
        for short, added in (extra or {}).items():
            new.writestr(f"model/{short}", added)
    return target


def in_program(change: Callable[[dict[str, object]], None]) -> dict[str, Edit]:
    def edit(content: bytes) -> bytes:
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return {"models/model.json": edit}


def replacing(old: str, new: str) -> dict[str, Edit]:
    def edit(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return {"models/model.json": edit}


def test_a_session_of_an_archive_gives_the_modules_scores(archive: Path, module: Ranker) -> None:
    session = TorchSession.open_file(archive, SessionSettings())
    feeds = {"item": np.array([4, 5, 6, 7]), "weight": np.array([1, 2, 3, 4], dtype=np.float32)}
    with torch.no_grad():
        expected = module(torch.tensor([4, 5, 6, 7]), torch.tensor([1.0, 2, 3, 4])).numpy()
    np.testing.assert_allclose(session.run(feeds)["score"], expected, rtol=1e-6)
    assert [(s.name, s.dtype, s.shape, s.role) for s in session.signature.inputs] == [
        ("item", "int64", ("rows",), "candidate"),
        ("weight", "float32", ("rows",), "candidate"),
    ]
    assert session.ref.runtime == "pytorch"


def test_pickled_example_inputs_do_not_run(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    body = io.BytesIO()
    torch.save((Bomb(marker),), body)
    bad = edited(archive, tmp_path / "bad.pt", {"data/sample_inputs/model.pt": lambda _: body.getvalue()})
    with pytest.raises(UntrustedError, match="example inputs are pickled objects"):
        open_archive(bad)
    assert not marker.exists()
    # The payload is live: PyTorch's own loader runs it, which is why the archive is scanned first.
    with quiet():
        torch.export.load(bad)
    assert marker.exists()


def test_a_shape_expression_with_code_does_not_run(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    code = f"__import__('pathlib').Path('{marker}').write_text('ran')"

    def poison(value: object) -> None:
        if isinstance(value, dict):
            if "expr_str" in value:
                value["expr_str"] = code
            for inner in value.values():
                poison(inner)
        elif isinstance(value, list):
            for inner in value:
                poison(inner)

    bad = edited(archive, tmp_path / "bad.pt", in_program(poison))
    with pytest.raises(UntrustedError, match="shape expression that is not arithmetic"):
        open_archive(bad)
    assert not marker.exists()


def test_guards_are_dropped_not_run(archive: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    guard = f"__import__('pathlib').Path('{marker}').write_text('ran')"
    bad = edited(archive, tmp_path / "bad.pt", in_program(lambda program: program.update(guards_code=[guard])))
    TorchSession.open_file(bad, SessionSettings())
    assert not marker.exists()


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("torch.ops.aten.linear.default", "torch.os.system", "no tensor operation"),
        ("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default", "no tensor operation"),
        ("torch.ops.aten.linear.default", "torch.ops.aten.__class__.mro", "no tensor operation"),
        ('"name": "linear"', '"name": "x=print(1)"', "no plain name"),
        ("builtins.tuple", "collections.defaultdict", "arguments of the type"),
    ],
)
def test_names_that_become_code_are_refused(archive: Path, tmp_path: Path, old: str, new: str, found: str) -> None:
    bad = edited(archive, tmp_path / "bad.pt", replacing(old, new))
    with pytest.raises(UntrustedError, match=found):
        open_archive(bad)


@pytest.mark.parametrize(
    "name", ["device", "metadata", "custom_obj", "as_custom_obj", "target", "in_spec", "expr_str", "config", "tensor_values"]
)
def test_an_input_may_be_called_like_a_key_of_the_format(archive: Path, tmp_path: Path, name: str) -> None:
    renamed = edited(archive, tmp_path / "renamed.pt", replacing('"item"', f'"{name}"'))
    session = TorchSession.open_file(renamed, SessionSettings())
    assert [spec.name for spec in session.signature.inputs] == [name, "weight"]


@pytest.mark.parametrize("name", ["item", "device", "tensor_values"])
def test_a_tensor_on_another_device_is_refused_whatever_it_is_called(archive: Path, tmp_path: Path, name: str) -> None:
    def to_cuda(content: bytes) -> bytes:
        program = json.loads(content.replace(b'"item"', f'"{name}"'.encode()))
        program["graph_module"]["graph"]["tensor_values"][name]["device"] = {"type": "cuda", "index": 0}
        return json.dumps(program).encode()

    with pytest.raises(InputError, match="expected tensors on the CPU, found device 'cuda'"):
        open_archive(edited(archive, tmp_path / "cuda.pt", {"models/model.json": to_cuda}))


def test_a_weight_may_be_called_like_a_key_of_the_format(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.device = nn.Parameter(torch.tensor([2.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.device

    with quiet():
        program = torch.export.export(Scaled(), (torch.ones(3),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
        torch.export.save(program, tmp_path / "scaled.pt")
    scores = TorchSession.open_file(tmp_path / "scaled.pt", SessionSettings()).run({"x": np.array([3.0, 4.0], dtype=np.float32)})["score"]
    np.testing.assert_array_equal(scores, [6.0, 8.0])


def test_a_custom_object_among_the_arguments_is_refused(archive: Path, tmp_path: Path) -> None:
    def smuggle(program: dict[str, object]) -> None:
        program["tensor_values"] = {"custom_obj": {"as_custom_obj": {"name": "x", "class_fqn": "os.system"}}}

    with pytest.raises(UntrustedError, match="a custom object"):
        open_archive(edited(archive, tmp_path / "bad.pt", in_program(smuggle)))


def test_pickled_weights_and_custom_objects_are_refused(archive: Path, tmp_path: Path) -> None:
    config = "data/weights/model_weights_config.json"
    pickled = edited(archive, tmp_path / "a.pt", {config: lambda b: b.replace(b'"use_pickle": false', b'"use_pickle": true')})
    with pytest.raises(UntrustedError, match="pickled object among its weights"):
        open_archive(pickled)
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}
    constants = json.dumps({"config": {"c": entry}}).encode()
    body = pickle.dumps(Bomb(tmp_path / "ran"))
    opaque = edited(
        archive,
        tmp_path / "b.pt",
        {"data/constants/model_constants_config.json": lambda _: constants},
        extra={"data/constants/opaque_obj_0": body},
    )
    with pytest.raises(UntrustedError, match="opaque_obj_0"):
        open_archive(opaque)
    assert not (tmp_path / "ran").exists()


def test_compiled_code_is_refused(archive: Path, tmp_path: Path) -> None:
    bad = edited(archive, tmp_path / "bad.pt", {}, extra={"data/aotinductor/model/x.so": b"\x7fELF"})
    with pytest.raises(UntrustedError, match="compiled code"):
        open_archive(bad)


def test_an_archive_that_declares_more_than_it_holds_is_refused_before_it_is_read(archive: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/archive_format", "pt2")
        file.writestr("model/data/weights/weight_0", b"\0" * 50_000_000)
    with pytest.raises(InputError, match="larger than the file"):
        open_archive(bomb)


def test_a_tensor_of_absurd_size_without_content_is_refused(archive: Path, tmp_path: Path) -> None:
    config = "data/weights/model_weights_config.json"
    edits: dict[str, Edit] = {
        config: lambda b: b.replace(b'"as_int": 10', b'"as_int": 1000000000000'),
        "data/weights/weight_0": lambda _: b"",
    }
    with pytest.raises(
        InputError, match=r"'table.weight': holds a tensor of shape \[1000000000000, 4\] that reaches outside its 0 stored values"
    ):
        open_archive(edited(archive, tmp_path / "bad.pt", edits))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"sizes": (11, 4)}, r"shape \[11, 4\] that reaches outside its 40 stored values"),
        ({"strides": (5, 1)}, "reaches outside its 40 stored values"),
        ({"storage_offset": 1}, "reaches outside its 40 stored values"),
        ({"sizes": (10**12, 4), "strides": (0, 1)}, "expanded from 40 stored values"),
        ({"strides": (-1, 1)}, "its weights are not as torch.export.save writes them"),
        ({"dtype": 99}, "its weights are not as torch.export.save writes them"),
    ],
)
def test_a_tensor_must_lie_within_its_bytes(archive: Path, tmp_path: Path, changes: dict[str, object], found: str) -> None:
    def edit(content: bytes) -> bytes:
        config = json.loads(content)
        meta = config["config"]["table.weight"]["tensor_meta"]
        for name, value in changes.items():
            sizes = [{"as_int": size} for size in value] if isinstance(value, tuple) else {"as_int": value}
            meta[name] = value if name == "dtype" else sizes
        return json.dumps(config).encode()

    with pytest.raises(InputError, match=found):
        open_archive(edited(archive, tmp_path / "bad.pt", {"data/weights/model_weights_config.json": edit}))


def test_an_archive_needs_no_example_inputs(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "bare.pt", "w") as new:
        for name in old.namelist():
            if "sample_inputs" not in name:
                new.writestr(name, old.read(name))
    empty = edited(archive, tmp_path / "empty.pt", {"data/sample_inputs/model.pt": lambda _: b""})
    for path in (tmp_path / "bare.pt", empty):
        assert open_archive(path).example_inputs is None
        assert TorchSession.open_file(path, SessionSettings()).run({"item": np.array([1]), "weight": np.array([1.0], dtype=np.float32)})


@pytest.mark.parametrize("expression", ["Pow(Integer(64), Pow(Integer(64), Integer(64)))", "Max(" + "s0, " * 200 + "s0)", "9**9**9"])
def test_a_shape_expression_that_would_take_forever_is_refused(archive: Path, tmp_path: Path, expression: str) -> None:
    def poison(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                poison(inner)
            if "expr_str" in value:
                value["expr_str"] = expression
        elif isinstance(value, list):
            for inner in value:
                poison(inner)

    with pytest.raises(UntrustedError, match="shape expression that is not arithmetic"):
        open_archive(edited(archive, tmp_path / "bad.pt", in_program(poison)))


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_archive_is_one_clear_error(archive: Path, tmp_path: Path, share: float) -> None:
    content = archive.read_bytes()
    cut = tmp_path / "cut.pt"
    cut.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="truncated or damaged"):
        open_archive(cut)


def test_kinds_are_told_apart_by_content(tmp_path: Path, archive: Path) -> None:
    state = tmp_path / "state.bin"
    torch.save({"a": torch.zeros(1)}, state)
    (tmp_path / "garbage.pt").write_bytes(b"hello world")
    assert kind_of(archive) == "torch.export archive"
    assert kind_of(state) == "torch.save file"
    assert kind_of(tmp_path / "garbage.pt") == "unknown file"
    with pytest.raises(InputError, match="expected a model file, found nothing"):
        kind_of(tmp_path / "missing.pt")
