"""Fitting a linear layer anew from sums over rows: which of its inputs it can do without, and what the others' weights become then."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

# Relative to the mean square of an input; keeps inputs that are nearly copies of one another from taking huge opposite weights.
RIDGE = 1e-4
_TINY = 1e-30


class Moments(msgspec.Struct):
    """Weighted sums over rows of a layer's inputs x `[inputs]`, with a 1 appended, and of what it should give, y `[outputs]`; they add.

    `gram` is float64 `[inputs + 1, inputs + 1]`, the sum of x x'; `cross` `[inputs + 1, outputs]`, of x y'; `square` `[outputs]`, of y^2.
    `distinct` counts rows that are not copies of one another within a request.
    """

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    rows: int = 0
    distinct: int = 0

    @classmethod
    def empty(cls, inputs: int, outputs: int) -> Moments:
        return cls(gram=np.zeros((inputs + 1, inputs + 1)), cross=np.zeros((inputs + 1, outputs)), square=np.zeros(outputs))

    def add(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Count rows in: `x` `[rows, inputs]`, `y` `[rows, outputs]`, `weight` `[rows]`, 1 each without."""
        root = np.ones((len(x), 1)) if weight is None else np.sqrt(weight)[:, None]
        wide = np.concatenate([x, np.ones((len(x), 1))], axis=1).astype(np.float64) * root
        target = y.astype(np.float64) * root
        self.gram += wide.T @ wide
        self.cross += wide.T @ target
        self.square += (target**2).sum(axis=0)
        self.rows += len(x)
        self.distinct += 1 if len(x) and (x == x[:1]).all() else len(x)

    def plus(self, other: Moments) -> Moments:
        return Moments(
            gram=self.gram + other.gram,
            cross=self.cross + other.cross,
            square=self.square + other.square,
            rows=self.rows + other.rows,
            distinct=self.distinct + other.distinct,
        )

    @property
    def total(self) -> float:
        """The sum of the rows' weights, never quite 0."""
        return max(float(self.gram[-1, -1]), _TINY)

    @property
    def variance(self) -> float:
        """Sum over outputs of the squared distance of y from its mean, never quite 0."""
        return max(float((self.square - self.cross[-1] ** 2 / self.total).sum()), _TINY)

    def error(self, weights: np.ndarray, columns: np.ndarray) -> float:
        """Relative output error: the root of the squared difference of y and the inputs `columns` times `weights`, over y's variance.

        The last row of `weights` `[len(columns) + 1, outputs]` is the bias.
        """
        chosen = np.append(columns, len(self.gram) - 1)
        gap = self.square.sum() - 2 * (weights * self.cross[chosen]).sum() + (weights * (self.gram[np.ix_(chosen, chosen)] @ weights)).sum()
        return float(np.sqrt(max(float(gap), 0.0) / self.variance))


def refit(moments: Moments, columns: np.ndarray, weights: np.ndarray, *, bias: bool, ridge: float = RIDGE) -> np.ndarray:
    """Weights `[len(columns) + 1, outputs]` for the inputs `columns` with the least squared output error; the last row is the bias.

    What is penalised is the distance from the weights that these inputs had, `weights` `[inputs, outputs]`, so that directions which the
    rows say nothing about stay as they were trained. Without `bias` the last row is 0.
    """
    last = len(moments.gram) - 1
    free = np.append(columns, last) if bias else columns
    gram = moments.gram[np.ix_(free, free)]
    old = np.concatenate([weights[columns], np.zeros((1, weights.shape[1]))]) if bias else weights[columns]
    penalty = _penalty(gram, ridge, bias=bias)
    change = np.linalg.solve(gram + np.diag(penalty), moments.cross[free] - gram @ old)
    return old + change if bias else np.concatenate([old + change, np.zeros((1, weights.shape[1]))])


class Part(msgspec.Struct, frozen=True):
    """A layer as a problem of choosing units: its sums, its weights `[inputs, outputs]`, and which columns each unit has.

    `units` is int64 `[units, columns per unit]`.
    """

    moments: Moments
    weights: np.ndarray
    units: np.ndarray
    bias: bool


def elimination(parts: Sequence[Part], *, ridge: float = RIDGE) -> np.ndarray:
    """Units in the order in which they are best removed, int64 `[units]`.

    One after the other goes the unit whose removal, with all other weights fitted anew, adds least to the squared output errors of all
    parts, each relative to its variance (optimal brain surgeon: Hassibi & Stork 1992; for whole columns at once: Frantar & Alistarh 2022,
    arXiv:2208.11580).
    """
    states = [_State.of(part, ridge) for part in parts]
    count = len(parts[0].units)
    alive = np.ones(count, dtype=bool)
    order = []
    for _ in range(count):
        cost = np.sum([state.costs() for state in states], axis=0)
        unit = int(np.argmin(np.where(alive, cost, np.inf)))
        alive[unit] = False
        order.append(unit)
        for state in states:
            state.remove(unit)
    return np.array(order, dtype=np.int64)


class _State:
    """The inverse of a part's Gram matrix and its fitted weights, while units leave."""

    def __init__(self, inverse: np.ndarray, weights: np.ndarray, units: np.ndarray) -> None:
        self._inverse, self._weights, self._units = inverse, weights, units

    @classmethod
    def of(cls, part: Part, ridge: float) -> _State:
        size = len(part.moments.gram) if part.bias else len(part.moments.gram) - 1
        gram = part.moments.gram[:size, :size]
        columns = np.arange(len(part.moments.gram) - 1)
        fitted = refit(part.moments, columns, part.weights, bias=part.bias, ridge=ridge)[:size]
        inverse = np.linalg.inv(gram + np.diag(_penalty(gram, ridge, bias=part.bias)))
        # Weights are scaled so that costs of parts with large and small outputs can be added.
        return cls(inverse, fitted / np.sqrt(part.moments.variance), part.units)

    def costs(self) -> np.ndarray:
        """What each unit's removal adds to the squared error, float64 `[units]`."""
        own = self._weights[self._units]
        if self._units.shape[1] == 1:
            return np.asarray((own[:, 0] ** 2).sum(axis=1) / np.diag(self._inverse)[self._units[:, 0]])
        blocks = self._inverse[self._units[:, :, None], self._units[:, None, :]]
        return np.asarray((own * np.linalg.solve(blocks, own)).sum(axis=(1, 2)))

    def remove(self, unit: int) -> None:
        columns = self._units[unit]
        through = np.linalg.solve(self._inverse[np.ix_(columns, columns)], self._inverse[columns])
        self._weights = self._weights - through.T @ self._weights[columns]
        self._inverse -= self._inverse[:, columns] @ through
        # What is gone takes no further part: an identity block keeps later solves regular.
        self._weights[columns] = 0.0
        self._inverse[columns] = 0.0
        self._inverse[:, columns] = 0.0
        self._inverse[columns, columns] = 1.0


def factors(moments: Moments, weights: np.ndarray, *, bias: bool, ridge: float = RIDGE) -> Factors:
    """The layer's weights, fitted anew, as a product of two matrices that loses least of the output on these rows.

    The singular values are those of S W with S'S the inputs' Gram matrix, so that directions which the rows never take cost nothing
    (reduced-rank regression: Izenman 1975; for networks: Yu & Wu 2023, AAAI, "Compressing Transformers: Features Are Low-Rank").
    """
    columns = np.arange(len(moments.gram) - 1)
    fitted = refit(moments, columns, weights, bias=bias, ridge=ridge)
    mean = moments.gram[-1, :-1] / moments.total if bias else np.zeros(len(columns))
    gram = moments.gram[:-1, :-1] - moments.total * np.outer(mean, mean)
    root = np.linalg.cholesky(gram + np.diag(_penalty(gram, ridge, bias=False))).T
    left, singular, right = np.linalg.svd(root @ fitted[:-1], full_matrices=False)
    scale = np.sqrt(singular)
    return Factors(first=np.linalg.solve(root, left * scale), second=scale[:, None] * right, fitted=fitted, mean=mean)


class Factors(msgspec.Struct, frozen=True):
    """All factors of a layer, the most important first: `first` `[inputs, n]`, `second` `[n, outputs]`.

    The last row of `fitted` `[inputs + 1, outputs]` is the bias; `mean` `[inputs]` is that of the rows.
    """

    first: np.ndarray
    second: np.ndarray
    fitted: np.ndarray
    mean: np.ndarray

    def of_rank(self, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The two matrices of this rank, and the bias that keeps the mean output."""
        first, second = self.first[:, :rank], self.second[:rank]
        lost = self.mean @ (self.fitted[:-1] - first @ second)
        return first, second, self.fitted[-1] + lost

    def weights(self, rank: int) -> np.ndarray:
        """The product and the bias as one matrix `[inputs + 1, outputs]`."""
        first, second, bias = self.of_rank(rank)
        return np.concatenate([first @ second, bias[None, :]])


def _penalty(gram: np.ndarray, ridge: float, *, bias: bool) -> np.ndarray:
    """The diagonal to add to a Gram matrix whose last column, with `bias`, is the constant one."""
    size = len(gram) - 1 if bias else len(gram)
    strength = ridge * float(np.trace(gram[:size, :size])) / max(size, 1) + _TINY
    return np.append(np.full(size, strength), 0.0) if bias else np.full(size, strength)
