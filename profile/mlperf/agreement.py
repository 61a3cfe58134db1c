"""Whether two tools that took turns at the same requests found the same percentiles.

If they did, it makes no difference which of a round's two blocks is called whose: exchanging them in random rounds gives another sample of
the same kind. The share of such exchanges that separate the tools as far as they are separated is an exact p-value (Fisher's randomization
test), whatever the noise, as long as which tool goes first in a round is drawn at random; Holm's correction over the percentiles keeps the
chance of any false "differ" among them at most `ALPHA`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.estimate import Estimate
from ..samples import Nanoseconds
from .result import PERCENTILES, Answer

ALPHA = 0.05
# Two tools agree only as far as could be seen: where the ratio might be further from 1 than this, nothing was learned.
TOLERANCE = 0.25
_DRAWS = 1999
Floats = npt.NDArray[np.float64]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One round: the same requests, asked by LoadGen and by us; int64 nanoseconds `[requests]` each."""

    loadgen: Nanoseconds
    ours: Nanoseconds


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """LoadGen's percentile over ours, with a bootstrap interval over rounds; `p_value` is corrected for the number of percentiles."""

    ratio: Estimate
    p_value: float
    answer: Answer


def compare_pairs(pairs: Sequence[Pair], rng: np.random.Generator) -> dict[str, Compared]:
    """Every percentile of PERCENTILES, pooled over all rounds. At least two rounds."""
    quantiles = _Pooled(pairs)
    rounds, shares = len(pairs), np.array(list(PERCENTILES.values()))
    as_measured = np.ones(rounds)
    found = np.log(quantiles.ratios(as_measured, as_measured * 0, shares))
    swapped = np.array([np.log(quantiles.ratios(1 - s, s, shares)) for s in rng.integers(0, 2, (_DRAWS, rounds)).astype(np.float64)])
    resampled = np.array(
        [
            quantiles.ratios(np.bincount(picked, minlength=rounds), as_measured * 0, shares)
            for picked in rng.integers(0, rounds, (_DRAWS, rounds))
        ]
    )
    # Exchanges that change nothing come out a rounding error away from what was found.
    p_values = (1 + np.count_nonzero(np.abs(swapped) >= np.abs(found) - 1e-12, axis=0)) / (_DRAWS + 1)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    answers = {}
    for name, ratio, down, up, p in zip(PERCENTILES, np.exp(found), low, high, holm(p_values), strict=True):
        estimate = Estimate(value=float(ratio), low=float(down), high=float(up), n=rounds)
        answers[name] = Compared(ratio=estimate, p_value=float(p), answer=answer_of(estimate, float(p)))
    return answers


def rule() -> str:
    """When percentiles agree, in words, and how often equal ones are said to differ."""
    return (
        f"differ: exchanging the tools in random rounds seldom separates them as far (randomization test, {_DRAWS:,} exchanges, Holm over "
        f"{len(PERCENTILES)} percentiles: where the tools are equal, any percentile of a scenario is said to differ at most {ALPHA:.0%} of "
        f"the time); agree: no difference, and the ratio's 95 % interval lies between {1 / (1 + TOLERANCE):.2f} and {1 + TOLERANCE:.2f}; "
        f"unclear: no difference, but a wider interval"
    )


def answer_of(ratio: Estimate, p_value: float) -> Answer:
    """Three ways: a difference was seen, none was though one of TOLERANCE would have been, or too little was seen to say."""
    if p_value < ALPHA:
        return "differ"
    narrow = ratio.low is not None and ratio.high is not None and ratio.low >= 1 / (1 + TOLERANCE) and ratio.high <= 1 + TOLERANCE
    return "agree" if narrow else "unclear"


def holm(p_values: Floats) -> Floats:
    """Adjusted p-values (Holm 1979), in the order given."""
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


class _Pooled:
    """All samples of all rounds in ascending order, so that a resampling is only a matter of weights."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        parts: list[tuple[Callable[[Pair], Nanoseconds], int]] = [(lambda pair: pair.loadgen, 0), (lambda pair: pair.ours, 1)]
        values = np.concatenate([part(pair) for part, _ in parts for pair in pairs]).astype(np.float64)
        cells = np.concatenate([np.full(len(part(pair)), 2 * i + tool) for part, tool in parts for i, pair in enumerate(pairs)])
        order = np.argsort(values, kind="stable")
        self._values, self._round, self._tool = values[order], cells[order] // 2, cells[order] % 2

    def ratios(self, kept: npt.NDArray[np.generic], exchanged: npt.NDArray[np.generic], shares: Floats) -> Floats:
        """LoadGen's quantiles over ours when round i counts `kept[i]` times as measured and `exchanged[i]` times the other way round."""
        weights = np.stack([kept, exchanged])
        theirs = weights[self._tool, self._round]
        mine = weights[1 - self._tool, self._round]
        return self._quantiles(theirs, shares) / self._quantiles(mine, shares)

    def _quantiles(self, weights: npt.NDArray[np.generic], shares: Floats) -> Floats:
        """The smallest value with at least that share of the weight at or below it."""
        total = np.cumsum(weights, dtype=np.float64)
        return np.asarray(self._values[np.searchsorted(total, shares * total[-1] * (1 - 1e-12))])
