"""Models that need values of tensors while they are recorded, and what each becomes with the change that its error suggests."""

from __future__ import annotations

import math

import numpy as np
import torch
from liftgate.runtime.archive import quiet
from torch import nn

from .refused_pair import Base, Pair, features, lengths


class Numpy(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = np.log1p(np.abs(x.numpy()))
        return self.score(torch.from_numpy(a))


class NumpyRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.log1p(torch.abs(x))
        return self.score(a)


class NumpyAxis(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x) + torch.from_numpy(np.mean(x.cpu().numpy(), axis=1))


class NumpyAxisRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x) + torch.mean(x, dim=1)


class Branch(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = x * 2
        return self.score(x)


class BranchRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.where(x.sum() > 0, x * 2, x)
        return self.score(x)


class EarlyReturn(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x < -1).any() and not (x > 2).any():
            return self.score(x)
        return -self.score(x)


class EarlyReturnRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where((x < -1).any() & ~(x > 2).any(), self.score(x), -self.score(x))


class Chosen(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = 2 if x.mean() > 0 else 3
        return self.score(x) * weight


class ChosenRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.where(x.mean() > 0, 2, 3)
        return self.score(x) * weight


class Flag(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flag = bool(x.max() > 1)
        return self.score(x) * (2 if flag else 1)


class FlagRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flag = x.max() > 1
        return self.score(x) * torch.where(flag, 2, 1)


class KeptNumber(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.sum().item()
        if total > 0:
            x = x / total
        return self.score(x)


class KeptNumberRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x.sum()
        x = torch.where(total > 0, x / total, x)
        return self.score(x)


class While(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.mean() < 3:
            x = x + 1
        return self.score(x)


class WhileRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(8):
            x = torch.where(x.mean() < 3, x + 1, x)
        return self.score(x)


class Check(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.score(x)
        if torch.isnan(y).any():
            raise ValueError("broken weights")
        return y


class CheckRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x)


class Float(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x / float(x.abs().max()))


class FloatRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x / x.abs().max())


class Cut(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        longest = int(count.max())
        seen = torch.arange(longest)[None, :] < count[:, None]
        return (self.items(history[:, :longest]).sum(-1) * seen).sum(1)


class CutRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        seen = torch.arange(history.shape[1])[None, :] < count[:, None]
        return (self.items(history).sum(-1) * seen).sum(1)


class Root(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x / math.sqrt(x.pow(2).sum()))


class RootRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x / torch.sqrt(x.pow(2).sum()))


class Largest(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[0].tolist()
        weight: float = max(first)
        return self.score(x) + weight


class LargestRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = x[0]
        return self.score(x) + torch.max(first)


class Steps(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        state = self.items(history)[:, 0]
        for _ in range(count.max()):
            state = state * 0.5
        return state.sum(-1)


class StepsRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        state = self.items(history)[:, 0]
        for i in range(history.shape[1]):
            state = torch.where(i < count.max(), state * 0.5, state)
        return state.sum(-1)


class ListIndex(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = [1.0, 2.0, 3.0, 4.0][x.sum(0).argmax()]
        return self.score(x) * weight


class ListIndexRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.tensor([1.0, 2.0, 3.0, 4.0])[x.sum(0).argmax()]
        return self.score(x) * weight


class DictLookup(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        group = {item: item // 2 for item in range(10)}
        groups = torch.stack([torch.tensor([group[int(item)] for item in row]) for row in history])
        return self.items(groups).sum((1, 2)) + count


class DictLookupRepaired(Base):
    group: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("group", torch.tensor([item // 2 for item in range(10)]), persistent=False)

    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        return self.items(self.group[history]).sum((1, 2)) + count


class Selected(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = x[x > 0]
        if positive.shape[0] > 0:
            return self.score(x) + positive.sum()
        return self.score(x)


class SelectedRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x) + torch.where(x > 0, x, 0).sum()


class Among(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        y = self.items(history).sum((1, 2)) + count
        if history[0, 0] in [1, 2, 3]:
            y = y * 2
        return y


class AmongRepaired(Base):
    def forward(self, history: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        y = self.items(history).sum((1, 2)) + count
        return torch.where(torch.isin(history[0, 0], torch.tensor([1, 2, 3])), y * 2, y)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class Custom(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Doubled.apply(x)  # type: ignore[no-untyped-call]
        return self.score(found)


class CustomRepaired(Base):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(x * 2)


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        with quiet():  # PyTorch warns that TorchScript is old
            self.inner = torch.jit.script(Inner())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.inner(x))


class ScriptedRepaired(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score(self.inner(x))


BRANCH = "a Python branch on tensor values"
PAIRS = (
    Pair(
        Numpy,
        NumpyRepaired,
        features,
        code="a = np.log1p(np.abs(x.numpy()))",
        construct="NumPy in forward",
        change="stay with tensors: `a = torch.log1p(torch.abs(x))`, and `a` where it says `torch.from_numpy(a)`",
    ),
    Pair(
        NumpyAxis,
        NumpyAxisRepaired,
        features,
        code="return self.score(x) + torch.from_numpy(np.mean(x.cpu().numpy(), axis=1))",
        construct="NumPy in forward",
        change="stay with tensors: `return self.score(x) + torch.mean(x, dim=1)`",
    ),
    Pair(
        Branch,
        BranchRepaired,
        features,
        code="if x.sum() > 0:",
        construct=BRANCH,
        sound=True,
        change="replace the branch by `x = torch.where(x.sum() > 0, x * 2, x)`",
    ),
    Pair(
        EarlyReturn,
        EarlyReturnRepaired,
        features,
        code="if (x < -1).any() and not (x > 2).any():",
        construct=BRANCH,
        sound=True,
        change="replace the branch by `return torch.where((x < -1).any() & ~(x > 2).any(), self.score(x), -self.score(x))`",
    ),
    Pair(
        Chosen,
        ChosenRepaired,
        features,
        code="weight = 2 if x.mean() > 0 else 3",
        construct=BRANCH,
        sound=True,
        change="choose with `torch.where(x.mean() > 0, 2, 3)`",
    ),
    Pair(
        Flag,
        FlagRepaired,
        features,
        code="flag = bool(x.max() > 1)",
        construct=BRANCH,
        sound=True,
        change="keep the tensor, `x.max() > 1`, and choose with torch.where instead of if",
    ),
    Pair(
        KeptNumber,
        KeptNumberRepaired,
        features,
        code="if total > 0:",
        construct=BRANCH,
        sound=True,
        change="replace the branch by `x = torch.where(total > 0, x / total, x)`, with `total = x.sum()`",
    ),
    Pair(
        While,
        WhileRepaired,
        features,
        code="while x.mean() < 3:",
        construct="a Python loop that ends by tensor values",
        sound=True,
        change="take a fixed number of steps that is enough: `for _ in range(N): x = torch.where(x.mean() < 3, x + 1, x)`",
    ),
    Pair(
        Check,
        CheckRepaired,
        features,
        code="if torch.isnan(y).any():",
        construct="a check of tensor values",
        sound=True,
        change="remove the check from forward, or make it before the model is called",
    ),
    Pair(
        Float,
        FloatRepaired,
        features,
        code="return self.score(x / float(x.abs().max()))",
        construct="float() of a tensor",
        sound=True,
        change="keep it a tensor: `return self.score(x / x.abs().max())`",
    ),
    Pair(
        Cut,
        CutRepaired,
        lengths,
        code="longest = int(count.max())",
        construct="int() of a tensor",
        sound=True,
        change="drop `longest`: use the padded length, and mask what lies behind `count.max()`",
    ),
    Pair(
        Root,
        RootRepaired,
        features,
        code="return self.score(x / math.sqrt(x.pow(2).sum()))",
        construct="Python's math on a tensor",
        change="use the torch function: `torch.sqrt(x.pow(2).sum())`",
    ),
    Pair(
        Largest,
        LargestRepaired,
        features,
        code="weight: float = max(first)",
        construct="Python's max() of tensors",
        change="use PyTorch's instead of Python's max: `torch.max(first)`, with `first = x[0]`",
    ),
    Pair(
        Steps,
        StepsRepaired,
        lengths,
        code="for _ in range(count.max()):",
        construct="a Python loop as long as a tensor says",
        change="run to a size that is fixed (the padded length) and choose with `torch.where(i < count.max(), new, old)` in each step",
    ),
    Pair(
        ListIndex,
        ListIndexRepaired,
        features,
        code="weight = [1.0, 2.0, 3.0, 4.0][x.sum(0).argmax()]",
        construct="a Python list indexed by a tensor",
        change="make the list a tensor: `torch.tensor([1.0, 2.0, 3.0, 4.0])[x.sum(0).argmax()]`",
    ),
    Pair(
        DictLookup,
        DictLookupRepaired,
        lengths,
        code="groups = torch.stack([torch.tensor([group[int(item)] for item in row]) for row in history])",
        construct="a Python dict looked up by tensor values",
        change="make `group` a tensor with one entry per key (register_buffer in __init__) and index that",
    ),
    Pair(
        Selected,
        SelectedRepaired,
        features,
        code="if positive.shape[0] > 0:",
        construct="a Python branch on how many elements were selected",
        sound=True,
        change="keep all elements and weigh them with the mask: torch.where(mask, value, 0) instead of value[mask]",
    ),
    Pair(
        Among,
        AmongRepaired,
        lengths,
        code="if history[0, 0] in [1, 2, 3]:",
        construct=BRANCH,
        sound=True,
        change="replace the branch by `y = torch.where(torch.isin(history[0, 0], torch.tensor([1, 2, 3])), y * 2, y)`",
    ),
    Pair(
        Custom,
        CustomRepaired,
        features,
        code="return torch.from_numpy(x.detach().numpy() * 2)",
        construct="NumPy in a custom autograd function",
        name="Doubled.forward",
        change="write the function's forward with torch operations; torch.export cannot look into NumPy",
    ),
    Pair(
        Scripted,
        ScriptedRepaired,
        features,
        code="return self.score(self.inner(x))",
        construct="a TorchScript module inside the model",
        sound=True,
        change="build `self.inner` from Inner itself, without torch.jit around it",
    ),
)
