from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from liftgate.core.errors import InputError, UntrustedError
from liftgate.runtime.archive import quiet
from liftgate.runtime.kinds import kind_of
from liftgate.runtime.script import open_script
from torch import nn


class Scores(NamedTuple):
    score: torch.Tensor
    logits: torch.Tensor


class Ranker(nn.Module):
    """What rankers are made of, and attributes of every kind TorchScript stores."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(20, 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.by_name = nn.ModuleDict({"click-head": nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.1), nn.GELU(), nn.Linear(8, 1))})
        self.register_buffer("mask", torch.arange(3))
        self.names = ["click", "zoé"]
        self.offsets = {"click": 2**40}
        self.scales = [0.5, float("inf")]
        self.pair = (3, "x")

    def forward(self, item: torch.Tensor, features: dict[str, torch.Tensor], bias: torch.Tensor | None = None) -> Scores:
        history = features["history"]
        past, _ = self.gru(self.items(history))
        past = self.encoder(past, src_key_padding_mask=history == 0)
        past, _ = self.attention(past, past, past, need_weights=False)
        for head in self.heads:
            past = torch.relu(head(past))
        steps = 0
        while steps < self.pair[0]:
            steps += 1
        logits = past.mean(1) * self.items(item)
        if self.offsets[self.names[0]] > 3 and steps == 3:
            logits = logits + 1.5e-7
        for name, head in self.by_name.items():
            logits = head(logits) if name == "click-head" else logits
        if bias is not None:
            logits = logits + bias
        return Scores(torch.sigmoid(logits.squeeze(-1)), logits)


def save(module: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.script(module.eval()).save(path)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return path


def replaced(source: Path, target: Path, suffix: str, old: bytes, new: bytes) -> Path:
    """A copy of an archive with a text replaced in the members whose names end in `suffix`; all are stored uncompressed."""
    found = 0
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            found += content.count(old) if name.endswith(suffix) else 0
            after.writestr(name, content.replace(old, new) if name.endswith(suffix) else content)
    assert found
    return target


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    torch.manual_seed(0)
    return Ranker().eval()


@pytest.fixture(scope="module")
def archive(ranker: Ranker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(ranker, tmp_path_factory.mktemp("script") / "ranker.pt")


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(nn.Linear(2, 1), tmp_path_factory.mktemp("script") / "linear.pt")


def test_a_scripted_ranker_gives_its_scores(ranker: Ranker, archive: Path) -> None:
    assert kind_of(archive) == "TorchScript archive"
    features = {"history": torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])}
    with quiet(), torch.no_grad():  # PyTorch warns that nested tensors are new
        expected = ranker(torch.tensor([6, 7]), features)
        found = open_script(archive)(torch.tensor([6, 7]), features)
    torch.testing.assert_close(tuple(found), tuple(expected))


def test_a_traced_ranker_gives_its_scores(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.PReLU(), nn.Linear(8, 1)).eval()
    with quiet():
        torch.jit.save(torch.jit.trace(module, torch.ones(2, 4)), tmp_path / "traced.pt")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with torch.no_grad():
        torch.testing.assert_close(open_script(tmp_path / "traced.pt")(torch.ones(5, 4)), module(torch.ones(5, 4)))


def test_modules_that_are_used_twice_stay_one(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.second = self.first

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.second(self.first(x))
            return found

    assert len(list(open_script(save(Tied(), tmp_path / "tied.pt")).parameters())) == 2


class Saves(nn.Module):
    """Writes a file when it runs."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.marker)
        return x


class SavesAtLoad(nn.Module):
    """Writes a file already when it is loaded."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = str(marker)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.marker, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.marker = state[0]
        self.training = state[1]
        torch.save(torch.ones(1), self.marker)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Reads(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/passwd", False, 4)


class Forks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, x))  # type: ignore


def test_code_that_writes_a_file_when_it_is_loaded_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = save(SavesAtLoad(marker), tmp_path / "evil.pt")
    with pytest.raises(UntrustedError, match="not plain tensor code: def __getstate__"):
        open_script(path)
    assert not marker.exists()
    # The payload is live: PyTorch's own loader runs it, which is why the archive is checked first.
    with quiet():
        torch.jit.load(path)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert marker.exists()


@pytest.mark.parametrize(
    ("module", "found"), [(Saves(Path("ran")), r"torch\.save"), (Reads(), r"torch\.from_file"), (Forks(), "__forked_function")]
)
def test_code_that_does_more_than_compute_is_refused_with_its_line(tmp_path: Path, module: nn.Module, found: str) -> None:
    with pytest.raises(UntrustedError, match=rf"code/__torch__.*\.py:\d+: holds code that is not plain tensor code: .*{found}"):
        open_script(save(module, tmp_path / "evil.pt"))


def test_a_trusted_script_is_loaded_as_it_is(tmp_path: Path) -> None:
    assert open_script(save(Saves(tmp_path / "ran"), tmp_path / "mine.pt"), trust_pickle=True) is not None


def test_operators_of_other_libraries_are_refused(tmp_path: Path) -> None:
    with quiet():
        quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})  # type: ignore[no-untyped-call]  # torch leaves it untyped
        torch.jit.save(torch.jit.trace(quantized, torch.ones(1, 4)), tmp_path / "int8.pt")  # type: ignore[no-untyped-call]  # torch leaves it untyped
    with pytest.raises(UntrustedError, match=r"ops\.quantized\.linear_dynamic"):
        open_script(tmp_path / "int8.pt")


@pytest.mark.parametrize(
    "line",
    [
        "x = torch.relu(input).save('ran')",  # a method of a tensor is an operator
        "x = ops.aten.save(input, 'ran')",
        "x = ops.prim.rpc_sync(input)",
        "x = input.from_file",
        "x = unchecked_cast(__torch__.torch.nn.modules.linear.Linear, input)",
        "x = torch._reshape_alias(input, [99999999], [1])",
        "x = torch.autograd.grad([input], [input])",
        "x = __torch__.torch.classes.quantized.LinearPackedParamsBase",
        "t = torch",
        "o = ops",
        "cast = unchecked_cast",
        "x = [y for y in input]",
        "x = (lambda: 1)()",
        "import os",
        "raise ValueError",
    ],
)
def test_only_what_pytorch_prints_for_tensor_code_is_taken(linear: Path, tmp_path: Path, line: str) -> None:
    bad = replaced(linear, tmp_path / "bad.pt", ".py", b"    weight = self.weight\n", f"    {line}\n".encode())
    with pytest.raises(UntrustedError, match="not plain tensor code"):
        open_script(bad)


def test_a_name_that_a_class_declares_does_not_hide_an_operator(linear: Path, tmp_path: Path) -> None:
    declared = replaced(linear, tmp_path / "declared.pt", ".py", b"  training : bool\n", b"  training : bool\n  save : bool\n")
    bad = replaced(declared, tmp_path / "bad.pt", ".py", b"    weight = self.weight\n", b'    x = getattr(input, "save")("ran")\n')
    with pytest.raises(UntrustedError, match="not plain tensor code: getattr"):
        open_script(bad)


def test_a_comment_that_only_torchscript_reads_is_dropped(linear: Path, tmp_path: Path) -> None:
    changed = replaced(linear, tmp_path / "changed.pt", ".py", b":\n    weight", b": # type: () -> int\n    weight")
    assert open_script(changed)(torch.ones(1, 2)).shape == (1, 1)


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b"K\x01K\x02t(K\x02K\x01t", b"K\x01K\x63t(K\x02K\x01t", r"shape \[1, 99\] that reaches outside its 2 stored values"),
        (b"cpuq\x06K\x02", b"cpuq\x06K\x63", "expected 396 bytes, found 8"),
        (b"FloatStorage", b"QInt8Storage", "unknown type"),
        (b"trainingq", b"trainynhq", "not those its code declares"),
        (b"ctorch._utils\n_rebuild_tensor_v2", b"cposix\nsystem", "pickled posix.system"),
        (b"trainingq\x0e\x89", b"trainingq\x0eN", "expected a value of the type bool, found a NoneType"),
    ],
)
def test_values_that_are_not_what_the_code_declares_are_refused(linear: Path, tmp_path: Path, old: bytes, new: bytes, found: str) -> None:
    bad = replaced(linear, tmp_path / "bad.pt", "/data.pkl", old, new)
    with pytest.raises(InputError, match=found):
        open_script(bad)


def test_code_that_unpacks_to_more_than_is_plausible_is_refused_before_it_is_read(linear: Path, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.pt"
    content = io.BytesIO(linear.read_bytes())
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("linear/code/__torch__/bomb.py", b" " * 200_000_000)
    bomb.write_bytes(content.getvalue())
    with pytest.raises(InputError, match="larger than the file"):
        open_script(bomb)
