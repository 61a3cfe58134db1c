"""The demo's rankers: v1.0 scores an item for a user from pooled history; v1.1 adds attention over the history and a wider top.

Both take rows, as training code writes them: `user` int64 [rows], `history` int64 [rows, history] (0 is padding, latest last) and `item`
int64 [rows]; they give `score` float32 [rows], a logit.
"""

from __future__ import annotations

import torch
from torch import nn


class Ranker(nn.Module):
    """v1.0: embeddings of user and item, mean of the history's item embeddings, an MLP on top."""

    def __init__(self, *, users: int, items: int, dim: int, hidden: tuple[int, int]) -> None:
        super().__init__()
        self.user = nn.Embedding(users + 1, dim)
        self.item = nn.Embedding(items + 1, dim, padding_idx=0)
        self.bias = nn.Embedding(items + 1, 1)
        widths = (4 * dim, *hidden)
        first, second, last = nn.Linear(widths[0], widths[1]), nn.Linear(widths[1], widths[2]), nn.Linear(widths[2], 1)
        self.top = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
        nn.init.normal_(self.user.weight, std=0.05)
        nn.init.normal_(self.item.weight, std=0.05)
        nn.init.zeros_(self.item.weight[0:1].detach())
        nn.init.zeros_(self.bias.weight)

    def forward(self, user: torch.Tensor, history: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        """Scores [rows]."""
        return self._score(self.user(user), self.item(history), history, item, copies=1)

    def lists(self, user: torch.Tensor, history: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores [lists, items] for `user` [lists], `history` [lists, history] and `items` [lists, items].

        The same scores as `forward` gives on repeated rows; the history is looked up and averaged once per list, which makes training
        several times faster.
        """
        return self._score(self.user(user), self.item(history), history, items.reshape(-1), copies=items.shape[1]).reshape(items.shape)

    def _score(self, user: torch.Tensor, seen: torch.Tensor, history: torch.Tensor, item: torch.Tensor, *, copies: int) -> torch.Tensor:
        """Scores [lists * copies]: everything but `item` is per list."""
        known = (history != 0).unsqueeze(-1).to(seen.dtype)
        pooled = _repeat((seen * known).sum(dim=1) / known.sum(dim=1).clamp(min=1.0), copies)
        target = self.item(item)
        features = [_repeat(user, copies), target, pooled, pooled * target, *self._attended(seen, history, target, copies=copies)]
        score: torch.Tensor = self.top(torch.cat(features, dim=-1)) + self.bias(item)
        return score.squeeze(-1)

    def _attended(self, seen: torch.Tensor, history: torch.Tensor, target: torch.Tensor, *, copies: int) -> list[torch.Tensor]:
        """Further features of the history as each target sees it: none."""
        return []


def _repeat(per_list: torch.Tensor, copies: int) -> torch.Tensor:
    """Each entry `copies` times; nothing is added to the graph for one."""
    return per_list if copies == 1 else per_list.repeat_interleave(copies, dim=0)


class AttentiveRanker(Ranker):
    """v1.1: also weighs each item of the history by how it relates to the candidate (target attention), with a wider top."""

    def __init__(self, *, users: int, items: int, dim: int, hidden: tuple[int, int], attention: int) -> None:
        super().__init__(users=users, items=items, dim=dim, hidden=hidden)
        self.top[0] = nn.Linear(5 * dim, hidden[0])
        self.attention = nn.Sequential(nn.Linear(3 * dim, attention), nn.ReLU(), nn.Linear(attention, 1))

    def _attended(self, seen: torch.Tensor, history: torch.Tensor, target: torch.Tensor, *, copies: int) -> list[torch.Tensor]:
        """The attended history [rows, dim]: weights from an MLP on (seen, target, seen * target), softmax over known items."""
        seen, history = _repeat(seen, copies), _repeat(history, copies)
        beside = target.unsqueeze(1).expand_as(seen)
        weight = self.attention(torch.cat([seen, beside, seen * beside], dim=-1))
        weight = torch.softmax(weight.masked_fill((history == 0).unsqueeze(-1), -1e9), dim=1)
        return [(weight * seen).sum(dim=1)]


def grow(base: Ranker, *, hidden: tuple[int, int], attention: int) -> AttentiveRanker:
    """v1.1 with v1.0's weights, giving v1.0's scores until it is trained further.

    The top is widened so that the function is kept (after Net2Net, Chen et al. 2015, arXiv:1511.05641): new units get fresh incoming and
    zero outgoing weights, and the attended history enters through zero weights.
    """
    users, dim = base.user.num_embeddings - 1, base.user.embedding_dim
    grown = AttentiveRanker(users=users, items=base.item.num_embeddings - 1, dim=dim, hidden=hidden, attention=attention)
    with torch.no_grad():
        for name in ("user", "item", "bias"):
            getattr(grown, name).weight.copy_(getattr(base, name).weight)
        for place in (0, 2, 4):
            _widen(_linear(base.top, place), _linear(grown.top, place))
    return grown


def _linear(layers: nn.Sequential, place: int) -> nn.Linear:
    layer = layers[place]
    if not isinstance(layer, nn.Linear):
        raise AssertionError(f"layer {place} of the top is a {type(layer).__name__}")
    return layer


def _widen(old: nn.Linear, new: nn.Linear) -> None:
    """Old units keep their weights and ignore new inputs; new units keep their fresh ones."""
    new.weight[: old.out_features, : old.in_features].copy_(old.weight)
    new.weight[: old.out_features, old.in_features :].zero_()
    new.bias[: old.out_features].copy_(old.bias)
