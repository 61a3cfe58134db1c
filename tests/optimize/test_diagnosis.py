from __future__ import annotations

import contextlib
import io

import pytest
import torch
from liftgate.core.errors import InputError
from liftgate.optimize.explain.diagnosis import Diagnosis, diagnose, sentence, text
from liftgate.runtime.archive import quiet
from torch import nn

from . import refused_rows, refused_values
from .refused_pair import Args, Pair, features, lengths

PAIRS = (*refused_values.PAIRS, *refused_rows.PAIRS)
SIZES = (1, 2, 7, 33)


def exported(module: nn.Module, args: Args, *, strict: bool = False) -> torch.export.ExportedProgram:
    rows = torch.export.Dim("rows", min=1)
    with quiet(), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        return torch.export.export(module, args, dynamic_shapes=tuple({0: rows} for _ in args), strict=strict)


def refusal(module: nn.Module, args: Args, *, strict: bool = False) -> Diagnosis:
    with pytest.raises(Exception) as caught:
        exported(module, args, strict=strict)
    return diagnose(caught.value, module)


def same_weights(pair: Pair) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    broken = pair.broken().eval()
    repaired = pair.repaired().eval()
    repaired.load_state_dict(broken.state_dict(), strict=False)
    return broken, repaired


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.broken.__name__)
def test_the_error_names_line_construct_and_change(pair: Pair) -> None:
    broken, _ = same_weights(pair)
    found = refusal(broken, pair.draw(7, 0))
    assert (found.code, found.name) == (pair.code, pair.where)
    assert (found.construct, found.change) == (pair.construct, pair.change)
    assert found.sound_with_torchscript is pair.sound


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.broken.__name__)
def test_with_the_change_the_model_exports_and_says_the_same(pair: Pair) -> None:
    broken, repaired = same_weights(pair)
    program = exported(repaired, pair.draw(7, 0)).module(check_guards=False)
    for rows in SIZES:
        args = pair.draw(rows, rows)
        with torch.no_grad():
            reference = broken if pair.runs_in_eager else repaired
            torch.testing.assert_close(program(*args), reference(*(a.clone() for a in args)), rtol=1e-4, atol=1e-5)


def test_a_gradient_in_forward_is_named() -> None:
    found = refusal(refused_rows.Derived().eval(), features(7, 0))
    assert (found.code, found.construct) == (
        "(slope,) = torch.autograd.grad(self.score(x).pow(2).sum(), x)",
        "a gradient computed in forward",
    )
    assert not found.sound_with_torchscript


def test_strict_mode_points_to_the_same_lines() -> None:
    for model in (refused_values.Branch, refused_values.Chosen, refused_rows.Rows, refused_rows.Appended, refused_rows.RowBranch):
        loose = refusal(model().eval(), features(7, 0))
        strict = refusal(model().eval(), features(7, 0), strict=True)
        assert (strict.file, strict.line, strict.name, strict.construct) == (loose.file, loose.line, loose.name, loose.construct)


def test_random_numbers_that_strict_mode_refuses_are_named() -> None:
    found = refusal(refused_rows.Dropped().eval(), features(7, 0), strict=True)
    assert (found.code, found.construct) == ("if random.random() < 0:", "random numbers in forward")


def test_an_error_raised_while_another_was_handled_explains_with_the_line_that_ran() -> None:
    model, args = refused_rows.Masked().eval(), lengths(7, 0)
    try:
        exported(model, args)
    except Exception:
        found = refusal(model, args, strict=True)
    assert found.code == "mask[i, :n] = 1"


def test_the_message_says_where_what_and_how() -> None:
    model = refused_values.Branch().eval()
    found = refusal(model, features(7, 0))
    place, problem, fix = text(found, "train.py:make_model")
    assert place == f"refused_values.py:{found.line} in Branch.forward"
    assert problem == "torch.export cannot record a Python branch on tensor values: `if x.sum() > 0:`"
    assert fix.startswith("replace the branch by `x = torch.where(x.sum() > 0, x * 2, x)`; or export it with `--fallback torchscript`")
    assert str(InputError(place, problem, fix=fix)).count("\n") == 0


class Unknown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.histogram(x[:, 0], 3).hist + x.mean()


class Wrong(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] @ torch.ones(4)


def test_an_operator_without_a_shape_rule_is_named() -> None:
    assert refusal(Unknown(), features(7, 0)).construct == "the operator histogram, which torch.export does not know"


def test_what_no_rule_knows_is_quoted_in_one_sentence() -> None:
    found = refusal(Wrong(), features(7, 0))
    assert (found.construct, found.code) == ("", "return x[:, :3] @ torch.ones(4)")
    _, problem, _ = text(found, "model")
    assert problem.startswith("torch.export stops here: `return x[:, :3] @ torch.ones(4)` (")
    assert "\n" not in problem


def test_pytorchs_sentence_is_cut_at_300_characters() -> None:
    assert len(sentence("RuntimeError: " + "x" * 1000)) == 300


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("UserError: Constraints violated (rows)!\n  - You marked rows as dynamic but your code specialized it to be a constant (7).",
         "your code specialized it to be a constant (7)"),
        ("TorchRuntimeError: x\n  Explanation: call_method cuda(): got RuntimeError('no cuda here')", "no cuda here"),
        ("ValueError: Could not guard on a (unhinted: b).  (Size-like symbols: none)", "Could not guard on a ."),
    ],
)  # fmt: skip
def test_the_useful_part_of_pytorchs_text_is_quoted(message: str, expected: str) -> None:
    assert sentence(message).replace("  ", " ") == expected


class Taken(nn.Module):
    def forward(self, x: torch.Tensor, mode: object) -> torch.Tensor:
        return x.sum(-1)


def test_an_argument_that_is_no_tensor_is_said_to_be_one() -> None:
    with pytest.raises(Exception) as caught, quiet():
        torch.export.export(Taken(), (*features(7, 0), object()), strict=False)
    place, problem, _ = text(diagnose(caught.value, Taken()), "Taken")
    assert (place, problem) == ("Taken", "torch.export cannot record an argument that is no tensor")
