"""Random rows that a recommender could meet: valid ids, dense values, and histories with their true lengths."""

from __future__ import annotations

import torch

USERS, ITEMS, CATEGORIES, HISTORY = 50, 200, 20, 10


class Draw:
    """Rows of one call.

    `lengths` (int64 [rows]) are the true lengths of every history drawn here, 1 to `history`. With two rows or more the first is full and
    the second has length 1.
    """

    def __init__(self, *, rows: int, seed: int, history: int = HISTORY) -> None:
        self.rows, self.seed = rows, seed
        self.width = history
        self._random = torch.Generator().manual_seed(seed)
        self.lengths = torch.randint(1, history + 1, (rows,), generator=self._random)
        if rows > 1:
            self.lengths[0], self.lengths[1] = history, 1

    def ids(self, size: int, *shape: int) -> torch.Tensor:
        """int64 [rows, *shape], from 1 to `size` - 1."""
        return torch.randint(1, size, (self.rows, *shape), generator=self._random)

    def history(self, size: int) -> torch.Tensor:
        """int64 [rows, history]: ids from 1 to `size` - 1, then 0 up to the full width."""
        return self.ids(size, self.width) * (torch.arange(self.width) < self.lengths[:, None])

    def dense(self, *shape: int) -> torch.Tensor:
        """float32 [rows, *shape], in [0, 1)."""
        return torch.rand((self.rows, *shape), generator=self._random)
