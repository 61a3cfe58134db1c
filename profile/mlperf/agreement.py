"""Whether two tools that took turns at the same requests found the same percentiles.

If they did, it makes no difference which of a round's two blocks is called whose: exchanging them in random rounds gives another sample of
the same kind. The share of such exchanges that separate the tools as far as they are separated is an exact p-value (Fisher's randomization
test), whatever the noise, as long as which tool goes first in a round is drawn at random; Holm's correction over the percentiles keeps the
chance of any false "differ" among them at most `ALPHA`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.estimate import Estimate
from ...core.multiplicity import holm
from ..samples import Nanoseconds
from .result import PERCENTILES, Answer

ALPHA = 0.05
# Two tools agree only as far as could be seen: where the ratio might be further from 1 than this, nothing was learned.
TOLERANCE = 0.25
# Less than this apart, tools are not said to differ however sure it is: no budget is about that.
INDIFFERENT = 0.02
_DRAWS = 1999
_GRID, _CHUNK = 4000, 250
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
    once, never = np.ones((1, rounds)), np.zeros((1, rounds))
    found = np.log(quantiles.ratios(once, never, shares))[0]
    exchanged = rng.integers(0, 2, (_DRAWS, rounds)).astype(np.float64)
    swapped = np.log(quantiles.ratios(1 - exchanged, exchanged, shares))
    times = rng.multinomial(rounds, np.full(rounds, 1 / rounds), _DRAWS).astype(np.float64)
    resampled = quantiles.ratios(times, np.zeros_like(times), shares)
    # Exchanges that change nothing come out a rounding error away from what was found.
    p_values = (1 + np.count_nonzero(np.abs(swapped) >= np.abs(found) - 1e-12, axis=0)) / (_DRAWS + 1)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    answers = {}
    for name, ratio, down, up, p in zip(PERCENTILES, np.exp(found), low, high, holm(p_values.tolist()), strict=True):
        estimate = Estimate(value=float(ratio), low=float(down), high=float(up), n=rounds)
        answers[name] = Compared(ratio=estimate, p_value=p, answer=answer_of(estimate, p))
    return answers


def rule() -> str:
    """When percentiles agree, in words, and how often equal ones are said to differ."""
    return (
        f"differ: more than {INDIFFERENT:.0%} apart, and exchanging the tools in random rounds seldom separates them as far "
        f"(randomization test, {_DRAWS:,} exchanges, Holm over {len(PERCENTILES)} percentiles: where the tools are equal, any percentile "
        f"of a scenario is said to differ at most {ALPHA:.0%} of the time); agree: no such difference, and the ratio's 95 % interval lies "
        f"between {1 / (1 + TOLERANCE):.2f} and {1 + TOLERANCE:.2f}; unclear: no such difference, but a wider interval"
    )


def answer_of(ratio: Estimate, p_value: float) -> Answer:
    """Three ways: a difference was seen, none was though one of TOLERANCE would have been, or too little was seen to say."""
    if p_value < ALPHA and abs(math.log(ratio.value or 1.0)) > math.log1p(INDIFFERENT):
        return "differ"
    narrow = ratio.low is not None and ratio.high is not None and ratio.low >= 1 / (1 + TOLERANCE) and ratio.high <= 1 + TOLERANCE
    return "agree" if narrow else "unclear"


class _Pooled:
    """All samples of all rounds in ascending order, so that a resampling is only a matter of weights.

    Beyond `_GRID` samples, quantiles are taken from every k-th of them: that moves a quantile's rank by less than 1 / `_GRID`.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        parts = [pair.loadgen for pair in pairs] + [pair.ours for pair in pairs]
        values = np.concatenate(parts).astype(np.float64)
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        order = np.argsort(values, kind="stable")
        step = max(1, math.ceil(len(values) / _GRID))
        steps = np.arange(len(values)) // step
        counts = np.bincount(steps * len(parts) + owners[order], minlength=(steps[-1] + 1) * len(parts))
        below = np.cumsum(counts.reshape(-1, len(parts)), axis=0, dtype=np.float64)
        self._grid = values[order][np.minimum((np.arange(len(below)) + 1) * step, len(values)) - 1]
        self._loadgen, self._ours = below[:, : len(pairs)], below[:, len(pairs) :]

    def ratios(self, kept: Floats, exchanged: Floats, shares: Floats) -> Floats:
        """LoadGen's quantiles over ours, float64 `[draws, shares]`.

        In draw d, round i counts `kept[d, i]` times as measured and `exchanged[d, i]` times the other way round.
        """
        found = []
        for start in range(0, len(kept), _CHUNK):
            once, other = kept[start : start + _CHUNK].T, exchanged[start : start + _CHUNK].T
            theirs = self._quantiles(self._loadgen @ once + self._ours @ other, shares)
            mine = self._quantiles(self._ours @ once + self._loadgen @ other, shares)
            found.append(theirs / mine)
        return np.concatenate(found)

    def _quantiles(self, below: Floats, shares: Floats) -> Floats:
        """The smallest value with at least that share of the weight at or below it; `below` is `[grid, draws]`."""
        wanted = (shares * (1 - 1e-12))[:, None] * below[-1]
        at = np.stack([np.count_nonzero(below < least, axis=0) for least in wanted], axis=1)
        return np.asarray(self._grid[at])
