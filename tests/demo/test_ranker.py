from __future__ import annotations

from pathlib import Path

import pytest
import torch
from liftgate.demo.case import prepare, train_both
from liftgate.demo.dataset import Dataset
from liftgate.demo.generator import generate
from liftgate.demo.ranker import Ranker, grow
from liftgate.demo.requests import HISTORY
from liftgate.demo.scale import TINY
from liftgate.demo.training import examples_of, save, train


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate(seed=2, users=40, items=300)


def rows(count: int, items: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(count)
    history = torch.randint(0, items + 1, (count, HISTORY), generator=random)
    history[0] = 0
    return torch.randint(1, 21, (count,), generator=random), history, torch.randint(1, items + 1, (count,), generator=random)


def model() -> Ranker:
    torch.manual_seed(0)
    return Ranker(users=20, items=50, dim=8, hidden=(16, 8)).eval()


def test_v1_1_gives_the_scores_of_v1_0_before_it_is_fine_tuned() -> None:
    base = model()
    grown = grow(base, hidden=(24, 12), attention=6).eval()
    assert sum(p.numel() for p in grown.parameters()) > sum(p.numel() for p in base.parameters())
    with torch.no_grad():
        assert torch.allclose(base(*rows(64, 50)), grown(*rows(64, 50)), atol=1e-6)


def test_training_on_lists_sees_the_scores_that_serving_gives() -> None:
    grown = grow(model(), hidden=(24, 12), attention=6).eval()
    first = grown.top[0]
    assert isinstance(first, torch.nn.Linear)
    torch.nn.init.normal_(first.weight, std=0.3)  # the attended history counts
    user, history, _ = rows(6, 50)
    items = torch.arange(1, 25).reshape(6, 4)
    with torch.no_grad():
        expected = grown(user.repeat_interleave(4), history.repeat_interleave(4, dim=0), items.reshape(-1))
        assert torch.allclose(grown.lists(user, history, items), expected.reshape(6, 4), atol=1e-6)


def test_every_new_part_of_v1_1_learns() -> None:
    grown = grow(model(), hidden=(24, 12), attention=6)
    optimiser = torch.optim.SGD(grown.parameters(), lr=0.1)
    for _ in range(4):  # zero weights open one layer at a time
        optimiser.zero_grad()
        grown(*rows(64, 50)).square().mean().backward()
        optimiser.step()
    still = {name for name, value in grown.named_parameters() if value.grad is None or not value.grad.any()}
    # Softmax ignores a constant added to every weight: this bias has no gradient beyond rounding.
    assert still <= {"attention.2.bias"}


def test_an_empty_history_gives_finite_scores() -> None:
    grown = grow(model(), hidden=(24, 12), attention=6).eval()
    user, history, item = rows(4, 50)
    with torch.no_grad():
        assert torch.isfinite(grown(user, torch.zeros_like(history), item)).all()


def test_an_archive_takes_any_number_of_rows(tmp_path: Path) -> None:
    grown = grow(model(), hidden=(24, 12), attention=6).eval()
    save(grown, tmp_path / "v1.1.pt")
    with (tmp_path / "v1.1.pt").open("rb") as file:
        program = torch.export.load(file)
    assert program.graph_signature.user_inputs == ("user", "history", "item")
    for count in (1, 2, 256):
        user, history, item = rows(count, 50)
        with torch.no_grad():
            expected = grown(user, history, item)
            found = program.module()(user, history, item)
        assert torch.allclose(found, expected, atol=1e-6)


def test_training_lowers_the_loss_and_is_repeated_by_its_seed(data: Dataset) -> None:
    case = prepare(data, TINY, seed=0)
    losses, weights, calls = [], [], []
    for _ in range(2):
        torch.manual_seed(1)
        ranker = Ranker(users=data.users, items=data.items, dim=8, hidden=(16, 8))
        untrained = train(ranker, examples_of(case.split.train), case.popularity, TINY.base, seed=9)
        trained = train(
            ranker, examples_of(case.split.train), case.popularity, TINY.base, seed=9, progress=lambda *call: calls.append(call)
        )
        losses.append((untrained, trained))
        weights.append(ranker.item.weight.detach().clone())
    assert losses[0][1] < losses[0][0]
    assert torch.equal(weights[0], weights[1])
    assert calls[-1][1] == calls[-1][2]


def test_padding_stays_zero_while_training(data: Dataset) -> None:
    case = prepare(data, TINY, seed=0)
    ranker = Ranker(users=data.users, items=data.items, dim=8, hidden=(16, 8))
    train(ranker, examples_of(case.split.train), case.popularity, TINY.tuning, seed=0)
    assert not ranker.item.weight[0].any()


def test_training_leaves_the_callers_random_numbers_alone(data: Dataset, tmp_path: Path) -> None:
    case = prepare(data, TINY, seed=0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_both(case, TINY, tmp_path, seed=0, progress=lambda *_: None)
    assert torch.equal(torch.rand(3), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v1.0.pt", "v1.1.pt"]
