"""Node times of many requests as arrays, and what is typical and what is slow among them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.estimate import Estimate
from ...core.spans import INFER
from .nodes import BLOCK_KEY, REQUEST_KEY, Call, Node, NodeRun, WorkerTrace, runs_of

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# The slowest requests, told apart from the typical ones: those between the quartiles.
TAIL_SHARE = 0.01
_TYPICAL = (0.25, 0.75)
_DRAWS = 1000


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds: `infer` float64 `[requests]`, `own` float64 `[requests, nodes]` (without the nodes inside a node).

    `request` says which of the pool, `block` in which turn; both int64 `[requests]`. `lost` requests have no node times.
    """

    nodes: tuple[Node, ...]
    infer: Floats
    own: Floats
    request: Integers
    block: Integers
    lost: int
    resolution_us: float

    def within(self, chosen: npt.NDArray[np.bool_] | Integers) -> Times:
        """Some of the requests."""
        parts = {name: getattr(self, name)[chosen] for name in ("infer", "own", "request", "block")}
        return msgspec.structs.replace(self, **parts)

    @property
    def outside(self) -> Floats:
        """What is in no node: the runtime around them, Python, and what was lost to the resolution; float64 `[requests]`."""
        return np.asarray(self.infer - self.own.sum(axis=1))


def times_of(trace: WorkerTrace) -> Times:
    """The arrays of a traced worker; there are no nodes when its runtime tells none."""
    told = trace.nodes
    # Requests that came when the profiler was full are left out.
    found = [(t, r) for t, r in zip(trace.spans.traces, runs_of(trace), strict=True) if told is None or r is not None]
    own = np.zeros((len(found), 0 if told is None else len(told.nodes)))
    for row, (_, run) in enumerate(found):
        for node, ns in () if run is None else own_ns(run):
            own[row, node] += ns / 1e3
    infer = [next(span for span in request.spans if span.name == INFER) for request, _ in found]
    return Times(
        nodes=() if told is None else told.nodes,
        infer=np.array([span.end_ns - span.start_ns for span in infer]) / 1e3,
        own=own,
        request=np.array([int(request.attributes[REQUEST_KEY]) for request, _ in found]),
        block=np.array([int(request.attributes[BLOCK_KEY]) for request, _ in found]),
        lost=len(trace.spans.traces) - len(found),
        resolution_us=0.0 if told is None else told.resolution_ns / 1e3,
    )


def own_ns(run: NodeRun) -> list[tuple[int, int]]:
    """Node and nanoseconds of every call, less what its inner calls took."""
    found: list[list[int]] = []
    around: list[tuple[Call, int]] = []
    for call in run.calls:
        while around and around[-1][0].end_ns <= call.start_ns:
            around.pop()
        if around:
            found[around[-1][1]][1] -= call.end_ns - call.start_ns
        around.append((call, len(found)))
        found.append([call.node, call.end_ns - call.start_ns])
    return [(node, max(0, ns)) for node, ns in found]


def typical(infer: Floats) -> npt.NDArray[np.bool_]:
    """Which requests lie between the quartiles."""
    low, high = np.quantile(infer, _TYPICAL)
    return np.asarray((infer >= low) & (infer <= high))


def slowest(infer: Floats) -> npt.NDArray[np.bool_]:
    """Which requests are the slowest 1 %: at least one."""
    count = max(1, round(TAIL_SHARE * len(infer)))
    chosen = np.zeros(len(infer), dtype=bool)
    chosen[np.argsort(infer, kind="stable")[-count:]] = True
    return chosen


def mean_by_block(values: Floats, block: Integers, rng: np.random.Generator) -> tuple[Estimate, ...]:
    """Mean of every column of `values` `[requests, columns]`; intervals from resampled blocks, as neighbours in time are alike."""
    _, position = np.unique(block, return_inverse=True)
    blocks = int(position.max()) + 1
    sums = np.zeros((blocks, values.shape[1]))
    np.add.at(sums, position, values)
    counts = np.bincount(position, minlength=blocks).astype(float)
    draws = resampled(sums, counts, rng)
    return estimates(values.mean(axis=0), draws, blocks)


def resampled(sums: Floats, counts: Floats, rng: np.random.Generator, launches: Integers | None = None) -> Floats:
    """Means of resampled blocks, given sums `[blocks, columns]` and counts `[blocks]`: float64 `[draws, columns]`.

    With the launch of each block, launches are resampled first and then the blocks of those.
    """
    launches = np.zeros(len(counts), dtype=np.int64) if launches is None else launches
    numbers = np.unique(launches)
    times = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=_DRAWS)
    weights = np.zeros((_DRAWS, len(counts)))
    for column, launch in enumerate(numbers):
        mine = launches == launch
        size = int(mine.sum())
        weights[:, mine] = rng.multinomial(size * times[:, column], np.full(size, 1 / size))
    total = weights @ counts
    return np.asarray((weights @ sums)[total > 0] / total[total > 0, None])


def estimates(values: Sequence[float] | Floats, draws: Floats, units: int) -> tuple[Estimate, ...]:
    """Percentile intervals of bootstrap `draws` `[draws, columns]`; unknown with fewer than 5 units."""
    if units < 5:
        return tuple(Estimate(value=float(value), low=None, high=None, n=units) for value in values)
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return tuple(Estimate(value=float(value), low=float(a), high=float(b), n=units) for value, a, b in zip(values, low, high, strict=True))
