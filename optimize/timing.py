"""An honest quick comparison: two or more models answer the same requests in one process, in turns.

It tells in about a second whether a step made a model slower, and ranks the trials of a search. It is no gate: processes differ from one
another, and only `profile` measures several of them. For models that compute on one thread the clock is the processor time of this process,
which equals the time on a wall clock while nobody else wants the core, and does not count the time that somebody else has it.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from ..core.estimate import Estimate
from ..core.progress import Progress, silent

Feeds = Mapping[str, np.ndarray]
Clock = Callable[[], int]

# Blocks are short so that few of them are hit when something else takes the core, and long enough for the clock and the switch of models.
_BLOCK_NS = 3e6
_FEWEST_BLOCKS, _MOST_BLOCKS = 12, 400
# A slow model gets its fewest blocks even when they take longer than asked for, up to this many times.
_PATIENCE = 10
_WARMUP_REQUESTS = 3
# Stopping as soon as the answer is clear looks at the data several times; this level leaves each look one chance in a thousand to be wrong.
LOOK_LEVEL = 0.999


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model to be timed: how to run it, and the requests in its own layout, the same ones in the same order for every contender."""

    name: str
    run: Callable[[Feeds], object]
    feeds: Sequence[Feeds]


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """Service times by block, as measured: `block_ns[block][contender]` is the mean over the block's requests, in nanoseconds.

    The requests of a block are the same for all contenders, who take turns in an order drawn anew for every block.
    """

    names: tuple[str, ...]
    block_ns: tuple[tuple[float, ...], ...]
    requests_per_block: int
    seed: int

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """float64 `[blocks, contenders]`, nanoseconds per request."""
        return np.asarray(self.block_ns, dtype=np.float64).reshape(-1, len(self.names))

    def median_us(self, contender: int) -> float:
        """Microseconds per request in the median block."""
        return float(np.median(self.times[:, contender])) / 1e3

    def ratio(self, treatment: int = 1, control: int = 0, *, level: float = 0.95) -> Estimate:
        """How many times longer `treatment` takes than `control`: the median over blocks, with the interval of a sign test."""
        times = self.times
        return median_interval(times[:, treatment] / times[:, control], level)


def race(
    contenders: Sequence[Contender],
    *,
    seconds: float = 1.0,
    seed: int = 0,
    clear: Callable[[Race], bool] | None = None,
    clock: Clock = time.process_time_ns,
    progress: Progress = silent,
) -> Race:
    """Time the contenders in interleaved blocks for about `seconds`, or until `clear` says that the answer is.

    `clock` has to be one of the wall (`time.perf_counter_ns`) where a model computes on several threads, for they wait for each other;
    `seconds` are seconds of that clock. `clear` is asked at block numbers that grow by half, so that it looks only a few times. Garbage
    collection waits until a block is over.
    """
    rng = np.random.default_rng(seed)
    requests = len(contenders[0].feeds)
    slowness = [_warm_up(one, clock) for one in contenders]
    # Enough blocks for an interval come before long blocks.
    size = int(min(_BLOCK_NS / max(min(slowness), 1.0), seconds * 1e9 / (2 * _FEWEST_BLOCKS * max(sum(slowness), 1.0))))
    size = max(1, min(size, 10_000))
    order = rng.permutation(requests)
    blocks: list[tuple[float, ...]] = []
    next_look = _FEWEST_BLOCKS
    begun = clock()
    while len(blocks) < _MOST_BLOCKS:
        picks = order[np.arange(len(blocks) * size, (len(blocks) + 1) * size) % requests]
        spent = [0.0] * len(contenders)
        with _no_collection():
            for turn in rng.permutation(len(contenders)).tolist():
                spent[turn] = _timed(contenders[turn], picks.tolist(), clock) / size
        blocks.append(tuple(spent))
        passed = (clock() - begun) / 1e9
        progress("timing", min(int(100 * passed / seconds), 100), 100)
        if passed > seconds * _PATIENCE or (passed > seconds and len(blocks) >= _FEWEST_BLOCKS):
            break
        if clear is not None and len(blocks) == next_look:
            next_look = math.ceil(next_look * 1.5)
            if clear(_race(contenders, blocks, size, seed)):
                break
    return _race(contenders, blocks, size, seed)


def median_interval(values: npt.NDArray[np.float64], level: float) -> Estimate:
    """Median with the order statistics that a sign test at `level` does not reject (Conover 1999, section 3.2); `n` counts the values.

    The bounds are None where there are too few values for `level`: 11 are needed for 99.9 %.
    """
    ordered = np.sort(values)
    # The largest k with P(fewer than k of n values below the median) <= (1 - level) / 2.
    k = int(stats.binom.ppf((1 - level) / 2, len(values), 0.5))
    k -= stats.binom.cdf(k - 1, len(values), 0.5) > (1 - level) / 2
    known = k >= 1
    low, high = (float(ordered[k - 1]), float(ordered[-k])) if known else (None, None)
    return Estimate(value=float(np.median(values)), low=low, high=high, n=len(values), level=level)


def _race(contenders: Sequence[Contender], blocks: Sequence[tuple[float, ...]], size: int, seed: int) -> Race:
    return Race(names=tuple(one.name for one in contenders), block_ns=tuple(blocks), requests_per_block=size, seed=seed)


def _warm_up(contender: Contender, clock: Clock) -> float:
    """Answer a few requests untimed, then a few timed: nanoseconds per request."""
    picks = [i % len(contender.feeds) for i in range(_WARMUP_REQUESTS)]
    _timed(contender, picks, clock)
    return _timed(contender, picks, clock) / len(picks)


def _timed(contender: Contender, picks: Sequence[int], clock: Clock) -> float:
    run, feeds = contender.run, [contender.feeds[i] for i in picks]
    start = clock()
    for feed in feeds:
        run(feed)
    return float(clock() - start)


@contextmanager
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
