from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from liftgate.core.errors import InputError
from liftgate.optimize.convert.torchscript import can_script, script_or_trace, tensors_of
from liftgate.optimize.convert.torchscript_onnx import script_to_onnx, to_onnx
from liftgate.runtime.archive import quiet
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .refused_pair import Base

ROWS = (1, 2, 7, 33)
INPUTS = {"history": {0: "rows", 1: "length"}, "count": {0: "rows"}}
SCORE = {"score": {0: "rows"}}
VARYING = frozenset({("history", 1)})


def draw(rows: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Histories [rows, length] and how much of each counts, from 1 to `length`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 10, (rows, length), generator=generator), torch.randint(1, length + 1, (rows,), generator=generator)


def session(model: ir.Model) -> Callable[[Mapping[str, torch.Tensor]], list[np.ndarray]]:
    found = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda feeds: list(found.run(None, {name: tensor.numpy() for name, tensor in feeds.items()}))


def converted(module: nn.Module) -> tuple[ir.Model, str]:
    torch.manual_seed(0)
    return to_onnx(module.eval(), draw(7, 6, 0), inputs=INPUTS, outputs=SCORE, where="model")


def check(module: nn.Module) -> tuple[ir.Model, str]:
    """ONNX Runtime says what PyTorch says, at every number of rows and at other history lengths."""
    model, how = converted(module)
    run = session(model)
    for rows in ROWS:
        for length in (6, 3, 9):
            history, count = draw(rows, length, rows * length)
            with torch.no_grad():
                expected = module(history, count)
            (found,) = run({"history": history, "count": count})
            np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    return model, how


class Packed(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.items(history), count.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        return self.score(last[-1])


class PackedUntyped(Packed):
    """As a user writes it who has no types: it cannot be compiled, so it is traced."""

    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        settings = {"batch_first": True, "enforce_sorted": False}
        packed = pack_padded_sequence(self.items(history), count.cpu(), **settings)
        _, last = self.gru(packed)
        return self.score(last[-1])


class PackedLstm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True, bidirectional=True, num_layers=2)

    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.items(history), count, batch_first=True, enforce_sorted=False)
        out, _ = self.lstm(packed)
        out, _ = pad_packed_sequence(out, batch_first=True)
        return out.sum((1, 2))


class Flips(Base):
    """A branch that goes the other way for other inputs."""

    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        x = self.items(history).sum(1)
        if bool(history.sum() % 2 == 0):
            return self.score(x) * 10
        return self.score(x) - 1


class FlipsBesidePacked(Packed):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.items(history), count, batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        y = self.score(last[-1])
        if bool(y.sum() > 0):
            y = y * 10
        return y


class RowByRow(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = self.items(history)
        found = []
        for row in range(history.shape[0]):
            found.append(seen[row, : int(count[row])].mean(0))
        return self.score(torch.stack(found))


class StepByStep(Base):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 4)

    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = self.items(history)
        state = torch.zeros(history.shape[0], 4)
        for step in range(history.shape[1]):
            state = torch.where((step < count).unsqueeze(-1), self.cell(seen[:, step], state), state)
        return self.score(state)


class Selected(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        long = count > 2
        y = torch.zeros(history.shape[0])
        y[long] = self.score(self.items(history[long]).sum(1))
        return y


def test_a_branch_that_flips_between_inputs_is_kept() -> None:
    model, how = check(Flips())
    assert how == "scripted"
    assert "If" in {node.op_type for node in model.graph}
    assert {int(draw(rows, 6, rows * 6)[0].sum()) % 2 for rows in ROWS} == {0, 1}


@pytest.mark.parametrize(
    ("module", "how", "operator"),
    [
        (Packed, "scripted", "GRU"),
        (PackedUntyped, "traced", "GRU"),
        (PackedLstm, "scripted", "LSTM"),
        (FlipsBesidePacked, "scripted", "If"),
        (RowByRow, "scripted", "Loop"),
        (StepByStep, "scripted", "Loop"),
        (Selected, "scripted", "NonZero"),
    ],
)
def test_what_torch_export_refuses_says_the_same_at_other_rows_and_lengths(module: type[nn.Module], how: str, operator: str) -> None:
    model, found = check(module())
    assert found == how
    assert operator in {node.op_type for node in model.graph}


class Settings:
    """Anything that TorchScript cannot compile."""


class Untyped(Base):
    settings = Settings()


class Baked(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        if self.items(history).sum() > 0:
            return self.score(self.items(history).sum(1))
        return count.float()


class BakedNumber(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        longest = count.max().item()
        return self.score(self.items(history).sum(1)) / longest


class BakedNumpy(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        weights = torch.from_numpy(np.log1p(count.numpy()))
        return self.score(self.items(history).sum(1)) * weights


class BakedRows(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        return torch.stack([self.score(row.sum(0)) for row in self.items(history)]) + count


class BakedList(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        return self.score(self.items(history).sum(1)) * torch.tensor(count)


@pytest.mark.parametrize(
    ("module", "line", "what"),
    [
        (Baked, "if self.items(history).sum() > 0:", "a Python branch on tensor values"),
        (BakedNumber, "longest = count.max().item()", "a tensor's .item()"),
        (BakedNumpy, "weights = torch.from_numpy(np.log1p(count.numpy()))", "NumPy in forward"),
        (BakedRows, "return torch.stack([self.score(row.sum(0)) for row in self.items(history)]) + count", "a Python loop over rows"),
        (BakedList, "return self.score(self.items(history).sum(1)) * torch.tensor(count)", "torch.tensor of tensors"),
    ],
)
def test_a_trace_that_would_keep_the_examples_values_is_refused(module: type[nn.Module], line: str, what: str) -> None:
    with pytest.raises(InputError) as caught:
        script_or_trace(module().eval(), draw(7, 6, 0), where="model")
    assert caught.value.where.startswith("test_torchscript.py:")
    assert caught.value.where.endswith(f"in {module.__name__}.forward")
    assert caught.value.problem == f"a trace would keep what the example gave for {what}: `{line}`"


class SilentSteps(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        y = count.float()
        for step in range(history.shape[1]):
            y = y + self.items(history[:, step]).sum(-1)
        return y


class SilentData(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        return self.score((self.items(history) * history.data.gt(3).unsqueeze(-1)).sum(1)) + count


class SilentState(Untyped):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        self.calls += 1
        return self.score(self.items(history).sum(1)) * self.calls + count


@pytest.mark.parametrize(
    ("module", "line"),
    [
        (SilentSteps, "y = y + self.items(history[:, step]).sum(-1)"),
        (SilentData, "return self.score((self.items(history) * history.data.gt(3).unsqueeze(-1)).sum(1)) + count"),
        (SilentState, "return self.score(self.items(history).sum(1)) * self.calls + count"),
    ],
)
def test_what_pytorch_does_not_warn_about_is_seen_by_tracing_other_inputs(module: type[nn.Module], line: str) -> None:
    with pytest.raises(InputError, match="records something else for other inputs") as caught:
        script_or_trace(module().eval(), draw(7, 6, 0), varying=VARYING, where="model")
    assert f"`{line}`" in caught.value.problem


class AtItsEnd(Untyped):
    """Six places and no more, so only shorter histories fit, and only on rows that are shorter."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(6, 4)

    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        seen = self.items(history) + self.places(torch.arange(history.shape[1]))
        return self.score(seen.gather(1, (count - 1).view(-1, 1, 1).expand(-1, 1, 4)).squeeze(1))


class OneSizeOnly(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        return self.items(history).view(-1, 24).sum(-1) + count


def test_a_trace_is_checked_at_sizes_on_which_the_model_runs() -> None:
    _, how = script_or_trace(AtItsEnd().eval(), draw(7, 6, 0), varying=VARYING)
    assert how == "traced"
    with pytest.raises(InputError, match="runs at no other size of history, so a trace of it cannot be checked"):
        script_or_trace(OneSizeOnly().eval(), draw(7, 6, 0), varying=VARYING)


class Checked(Untyped):
    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        assert (count > 0).all()
        if (history < 0).any():
            raise ValueError("negative ids")
        low = -1.5
        return self.score(self.items(history).sum(1)).maximum(torch.tensor(low))


def test_checks_and_written_constants_do_not_stop_a_trace() -> None:
    _, how = check(Checked())
    assert how == "traced"


class Tied(Untyped):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Embedding(10, 4), nn.Embedding(10, 4)
        self.again.weight = self.first.weight

    def forward(self, history, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
        _ = self.settings
        return (self.first(history).sum(1) * self.again(count)).sum(-1)


def test_weights_with_two_names_are_traced() -> None:
    module = Tied()
    _, how = check(module)
    assert how == "traced"
    assert module.again.weight is module.first.weight


class Nested(Base):
    """A dictionary in, a dictionary out, and a branch between."""

    def forward(self, features: dict[str, torch.Tensor], scale: float = 2.0) -> dict[str, torch.Tensor]:
        x = self.items(features["item"]) * features["weight"].unsqueeze(-1)
        if bool(x.sum() > 0):
            x = x * scale
        return {"score": self.score(x), "shown": torch.sigmoid(self.score(x))}


def test_dictionaries_are_flattened_around_compiled_code() -> None:
    module = Nested().eval()
    features = {"item": torch.arange(7), "weight": torch.linspace(-1, 1, 7)}
    script, how = script_or_trace(module, (features,))
    assert how == "scripted"
    model = script_to_onnx(
        script,
        tensors_of((features,)),
        inputs={"item": {0: "rows"}, "weight": {0: "rows"}},
        outputs={"score": {0: "rows"}, "shown": {0: "rows"}},
        where="model",
    )
    assert "If" in {node.op_type for node in model.graph}
    run = session(model)
    for rows in ROWS:
        for sign in (1.0, -1.0):
            given = {"item": torch.arange(rows) % 10, "weight": torch.full((rows,), sign)}
            with torch.no_grad():
                expected = module(given)
            score, shown = run(given)
            np.testing.assert_allclose(score, expected["score"].numpy(), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(shown, expected["shown"].numpy(), rtol=1e-4, atol=1e-5)


class Ignores(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
        return self.score(self.items(history).sum(1)) + count


def test_inputs_the_graph_does_not_use_keep_their_place_and_names() -> None:
    args = (*draw(7, 6, 0), torch.zeros(7, 3))
    inputs = {"history": {0: "rows", 1: "length"}, "count": {0: "rows"}, "unused": {0: "rows"}}
    model, _ = to_onnx(Ignores().eval(), args, inputs=inputs, outputs=SCORE, where="model")
    assert [value.name for value in model.graph.inputs] == ["history", "count", "unused"]
    assert [str(value.shape) for value in model.graph.inputs] == ["[rows,length]", "[rows]", "[rows,3]"]
    assert [value.name for value in model.graph.outputs] == ["score"]


class Unsupported(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        return self.score(self.items(history).sum(1)) + torch.bucketize(count, torch.tensor([1, 3])) + torch.frexp(count.float())[0]


def test_an_operator_without_onnx_is_named() -> None:
    with pytest.raises(InputError, match=r"no ONNX for aten::frexp; write frexp with other operators"):
        converted(Unsupported())


def test_a_script_that_was_given_is_not_rewritten() -> None:
    with quiet():
        script = torch.jit.script(Flips().eval())
    before = str(script.graph)
    model, how = to_onnx(script, draw(7, 6, 0), inputs=INPUTS, outputs=SCORE, where="model")
    assert (how, str(script.graph)) == ("scripted", before)
    assert "If" in {node.op_type for node in model.graph}


def test_whether_a_model_compiles_is_known_without_warnings() -> None:
    assert can_script(Flips())
    assert not can_script(Baked())
