"""Models that fit one number of rows, or that call what cannot be recorded, and what each becomes with the suggested change."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .refused_pair import Args, Base, Pair, features, lengths


class Rows(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.linear(row) for row in x]).squeeze(-1)


class RowsRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.linear(x)
        return found.squeeze(-1)


class Appended(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = []
        for row in range(x.shape[0]):
            found.append(x[row].softmax(0).max() * 2)
        return torch.stack(found)


class AppendedRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = torch.vmap(lambda row: row.softmax(0).max() * 2)(x)
        return found


class Masked(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(history.shape)
        for i, n in enumerate(count):
            mask[i, :n] = 1
        return (self.items(history).sum(-1) * mask).sum(1)


class MaskedRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(history.shape)
        mask = mask.masked_fill(torch.arange(mask.shape[1], device=count.device)[None, :] < count[:, None], 1)
        return (self.items(history).sum(-1) * mask).sum(1)


class Placed(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        history = torch.cat([history, torch.zeros_like(history[:, :1])], 1)
        for row, last in enumerate(count):
            history[row][last] = 9
        return self.items(history)[:, 1:].sum((1, 2))


class PlacedRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        history = torch.cat([history, torch.zeros_like(history[:, :1])], 1)
        history = history.scatter(1, count[:, None], 9)
        return self.items(history)[:, 1:].sum((1, 2))


class Zipped(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = self.items(history).sum(-1)
        return torch.stack([row[:n].sum() for row, n in zip(seen, count, strict=True)])


class ZippedRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = self.items(history).sum(-1)
        return (seen * (torch.arange(seen.shape[1])[None, :] < count[:, None])).sum(1)


class Packed(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.items(history), count.cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.gru(packed)
        return self.score(last[-1])


class PackedRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        out, _ = self.gru(self.items(history))
        last = out.gather(1, (count - 1).view(-1, 1, 1).expand(-1, 1, out.shape[-1])).squeeze(1)
        return self.score(last)


class PackedAll(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.items(history), count, batch_first=True, enforce_sorted=False)
        out, _ = self.gru(packed)
        all_steps: torch.Tensor = pad_packed_sequence(out, batch_first=True)[0]
        return all_steps.sum((1, 2))


class PackedAllRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        out, _ = self.gru(self.items(history))
        out = out * (torch.arange(out.shape[1], device=out.device)[None, :] < count[:, None]).unsqueeze(-1)
        all_steps: torch.Tensor = out
        return all_steps.sum((1, 2))


class View(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x.view(7, -1))


class Zeros(Base):
    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(1, self.batch_size, 4)
        out, _ = self.gru(x.unsqueeze(1), start)
        return self.score(out[:, -1])


class ZerosRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = torch.zeros(1, x.shape[0], 4)
        out, _ = self.gru(x.unsqueeze(1), start)
        return self.score(out[:, -1])


class ViewRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x.view(x.shape[0], -1))


class Held(Base):
    def __init__(self) -> None:
        super().__init__()
        self.state = torch.zeros(1, 7, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, self.state = self.gru(x.unsqueeze(1), self.state)
        return self.score(out[:, -1])


class RowBranch(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > 5:
            return self.score(x) - self.score(x).mean()
        return self.score(x) - self.score(x).sum() / x.shape[0]


class RowBranchRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x) - self.score(x).mean()


class Tiled(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = np.tile(np.array(range(4)), [x.shape[0], 1])
        return self.score(x + self.items(torch.LongTensor(places)).sum(-1))


class TiledRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.tile(torch.arange(4), [x.shape[0], 1])
        return self.score(x + self.items(places).sum(-1))


class OfTensors(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.tensor([x.sum(), x.mean()])
        return self.score(x) + total.sum()


class OfTensorsRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.stack([x.sum(), x.mean()])
        return self.score(x) + total.sum()


class Lasts(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        last = torch.LongTensor([n - 1 for n in count])
        return self.items(history)[torch.arange(history.shape[0]), last].sum(-1)


class LastsRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        last = count - 1
        return self.items(history)[torch.arange(history.shape[0]), last].sum(-1)


class Device(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x + torch.ones(4, device="cuda"))


class DeviceRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x + torch.ones(4, device=x.device))


class Data(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.data.gt(0)
        return self.score(x * mask)


class DataRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.gt(0)
        return self.score(x * mask)


class Sparse(Base):
    def __init__(self) -> None:
        super().__init__()
        self.links = torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.ones(2), (4, 4), check_invariants=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(torch.sparse.mm(self.links, x.t()).t())


class SparseRepaired(Base):
    links: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("links", torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(torch.matmul(self.links, x.t()).t())


class OneHot(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = functional.one_hot(history)
        return seen.sum((1, 2)) * count + self.items(history).sum((1, 2))


class OneHotRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = functional.one_hot(history, num_classes=10)
        return seen.sum((1, 2)) * count + self.items(history).sum((1, 2))


class Printing(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print(f"mean {x.mean():.3f}")  # noqa: T201 - what is tested
        return self.score(x)


class Plain(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x)


class Hooked(Base):
    def __init__(self) -> None:
        super().__init__()
        self.linear.register_forward_hook(self.finite)

    def finite(self, module: nn.Module, given: Args, found: torch.Tensor) -> None:
        if found.isnan().any():
            raise ValueError(type(module).__name__)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x)


class Derived(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.requires_grad_()
        (slope,) = torch.autograd.grad(self.score(x).pow(2).sum(), x)
        return slope.sum(-1)


class Dropped(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if random.random() < 0:
            return self.score(x) * 2
        return self.score(x)


LOOP = "a Python loop over rows"
PACKED = "a packed sequence (pack_padded_sequence)"
PAIRS = (
    Pair(
        Rows,
        RowsRepaired,
        features,
        code="return torch.stack([self.linear(row) for row in x]).squeeze(-1)",
        construct=LOOP,
        sound=True,
        change="compute all rows at once: `self.linear(x)` instead of the loop and torch.stack",
    ),
    Pair(
        Appended,
        AppendedRepaired,
        features,
        code="for row in range(x.shape[0]):",
        construct=LOOP,
        sound=True,
        change="compute all rows at once: `torch.vmap(lambda row: row.softmax(0).max() * 2)(x)` instead of the loop and torch.stack",
    ),
    Pair(
        Masked,
        MaskedRepaired,
        lengths,
        code="mask[i, :n] = 1",
        construct="a Python loop that fills a mask row by row",
        sound=True,
        change="compute it at once: "
        "`mask = mask.masked_fill(torch.arange(mask.shape[1], device=count.device)[None, :] < count[:, None], 1)`",
    ),
    Pair(
        Placed,
        PlacedRepaired,
        lengths,
        code="history[row][last] = 9",
        construct="a Python loop that sets one entry per row",
        sound=True,
        change="set them at once: `history = history.scatter(1, count[:, None], 9)`",
    ),
    Pair(
        Zipped,
        ZippedRepaired,
        lengths,
        code="return torch.stack([row[:n].sum() for row, n in zip(seen, count, strict=True)])",
        construct=LOOP,
        change="compute all rows of `seen`, `count` at once; "
        "lengths become a mask: `torch.arange(seen.shape[1])[None, :] < lengths[:, None]`",
        sound=True,
    ),
    Pair(
        Packed,
        PackedRepaired,
        lengths,
        code="_, last = self.gru(packed)",
        construct=PACKED,
        sound=True,
        change="run it on the padded sequence and take the output at each row's last step: `out, _ = self.gru(self.items(history)); "
        "last = out.gather(1, (count - 1).view(-1, 1, 1).expand(-1, 1, out.shape[-1])).squeeze(1)`",
    ),
    Pair(
        PackedAll,
        PackedAllRepaired,
        lengths,
        code="out, _ = self.gru(packed)",
        construct=PACKED,
        sound=True,
        change="run it on the padded sequence and mask the rest: `out, _ = self.gru(self.items(history)); "
        "out = out * (torch.arange(out.shape[1], device=out.device)[None, :] < count[:, None]).unsqueeze(-1)`",
    ),
    Pair(
        View,
        ViewRepaired,
        features,
        code="return self.score(x.view(7, -1))",
        construct="a fixed number of rows (7)",
        change="take it from the input: `return self.score(x.view(x.shape[0], -1))`",
        runs_in_eager=False,
    ),
    Pair(
        Zeros,
        ZerosRepaired,
        features,
        code="out, _ = self.gru(x.unsqueeze(1), start)",
        construct="a fixed number of rows (self.batch_size)",
        change="take it from the input: `start = torch.zeros(1, x.shape[0], 4)`",
        runs_in_eager=False,
    ),
    Pair(
        Held,
        ZerosRepaired,
        features,
        code="out, self.state = self.gru(x.unsqueeze(1), self.state)",
        construct="state kept in self.state from one batch to the next",
        change="start every call anew: `torch.zeros(..., x.shape[0], ...)` instead of `self.state` of the call before",
        runs_in_eager=False,
    ),
    Pair(
        RowBranch,
        RowBranchRepaired,
        features,
        code="if x.shape[0] > 5:",
        construct="a Python branch on the number of rows",
        sound=True,
        change="write one expression that holds for any number of rows",
    ),
    Pair(
        Tiled,
        TiledRepaired,
        features,
        code="places = np.tile(np.array(range(4)), [x.shape[0], 1])",
        construct="NumPy given the number of rows",
        change="use PyTorch's: `places = torch.tile(torch.arange(4), [x.shape[0], 1])`",
    ),
    Pair(
        OfTensors,
        OfTensorsRepaired,
        features,
        code="total = torch.tensor([x.sum(), x.mean()])",
        construct="torch.tensor of tensors",
        change="use `torch.stack([x.sum(), x.mean()])`",
    ),
    Pair(
        Lasts,
        LastsRepaired,
        lengths,
        code="last = torch.LongTensor([n - 1 for n in count])",
        construct="torch.LongTensor of tensors",
        change="compute it without a list: `count - 1`",
    ),
    Pair(
        Device,
        DeviceRepaired,
        features,
        code='return self.score(x + torch.ones(4, device="cuda"))',
        construct="a device named in forward",
        change="follow the input's device: `return self.score(x + torch.ones(4, device=x.device))`",
        runs_in_eager=False,
    ),
    Pair(
        Data,
        DataRepaired,
        features,
        code="mask = x.data.gt(0)",
        construct="a tensor's .data",
        change="use the tensor, or .detach(): `mask = x.gt(0)`",
    ),
    Pair(
        Sparse,
        SparseRepaired,
        features,
        code="return self.score(torch.sparse.mm(self.links, x.t()).t())",
        construct="a sparse tensor",
        change="make it dense once in __init__ (`self.links.to_dense()`) and multiply with torch.matmul",
    ),
    Pair(
        OneHot,
        OneHotRepaired,
        lengths,
        code="seen = functional.one_hot(history)",
        construct="one_hot without a number of classes",
        change="say how many there are: `functional.one_hot(history, num_classes=N)`",
    ),
    Pair(
        Printing,
        Plain,
        features,
        code='print(f"mean {x.mean():.3f}")  # noqa: T201 - what is tested',
        construct="printing in forward",
        change="remove this line, or print outside of forward",
    ),
    Pair(
        Hooked,
        Plain,
        features,
        code="if found.isnan().any():",
        construct="a forward hook on self.linear",
        name="Hooked.finite",
        change="remove the hook before the export: `handle.remove()`",
    ),
)
