"""One scenario: what both tools told, round by round, and what it amounts to."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ..load.limits import LatencyLimit
from ..protocol import BlockDone, LoadgenDone, ScheduleDone
from ..samples import Nanoseconds
from ..statistics import quantile_estimate
from .agreement import Pair, compare_pairs
from .loadgen import Judgement
from .result import PERCENTILES, LoadgenVerdict, PercentileCheck, ScenarioCheck

Wait = tuple[int, int] | None


class LoadgenBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A run of LoadGen, int64 nanoseconds `[requests]` in the order it asked; fields as in protocol.LoadgenDone."""

    order: npt.NDArray[np.int64]
    due_ns: Nanoseconds
    issue_ns: Nanoseconds
    latency_ns: Nanoseconds
    service_ns: Nanoseconds
    wait: Wait

    @classmethod
    def of(cls, done: LoadgenDone) -> LoadgenBlock:
        arrays = (
            np.frombuffer(part, dtype="<i8").astype(np.int64) for part in (done.order, done.due, done.issue, done.latency, done.service)
        )
        order, due, issue, latency, service = arrays
        return cls(order=order, due_ns=due, issue_ns=issue, latency_ns=latency, service_ns=service, wait=done.wait)

    @property
    def callback_ns(self) -> Nanoseconds:
        """Of each latency: what is neither waiting nor the model."""
        return self.latency_ns - self.issue_ns - self.service_ns

    @property
    def late_ns(self) -> Nanoseconds:
        """How late each request was issued once it was due and the one before it answered."""
        answered = self.due_ns + self.latency_ns
        free = np.concatenate([self.due_ns[:1], answered[:-1]])
        late: Nanoseconds = self.due_ns + self.issue_ns - np.maximum(self.due_ns, free)
        return late


class OurBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A block or a schedule of ours, int64 nanoseconds `[requests]`; nothing is late in a block."""

    latency_ns: Nanoseconds
    late_ns: Nanoseconds | None
    wait: Wait

    @classmethod
    def of_block(cls, done: BlockDone) -> OurBlock:
        return cls(latency_ns=np.frombuffer(done.samples, dtype="<i8").astype(np.int64), late_ns=None, wait=done.wait)

    @classmethod
    def of_schedule(cls, done: ScheduleDone) -> OurBlock:
        latency, late = (np.frombuffer(part, dtype="<i8").astype(np.int64) for part in (done.latency, done.lag))
        return cls(latency_ns=latency, late_ns=late, wait=done.wait)


Round = tuple[LoadgenBlock, OurBlock]


class Gathered:
    """What a scenario told so far: `launches[l][r]` is round r of launch l."""

    def __init__(self, rate_per_s: float | None) -> None:
        self.rate_per_s = rate_per_s
        self.launches: list[list[Round]] = []
        self.verdict: LoadgenVerdict | None = None

    @property
    def rounds(self) -> list[Round]:
        return [pair for launch in self.launches for pair in launch]

    @property
    def waits(self) -> list[Wait]:
        return [block.wait for pair in self.rounds for block in pair]


def scenario_check(found: Gathered, rng: np.random.Generator) -> ScenarioCheck:
    """Percentiles of both tools, and whether they agree."""
    if found.verdict is None:
        raise AssertionError("the last launch judges")
    rounds = found.rounds
    callback = int(np.median(np.concatenate([theirs.callback_ns for theirs, _ in rounds])))
    pairs = [Pair(loadgen=np.maximum(theirs.latency_ns - callback, 1), ours=ours.latency_ns) for theirs, ours in rounds]
    compared = compare_pairs(pairs, rng)
    by_loadgen = [[theirs.latency_ns for theirs, _ in launch] for launch in found.launches]
    by_us = [[ours.latency_ns for _, ours in launch] for launch in found.launches]
    checks = tuple(
        PercentileCheck(
            percentile=name,
            loadgen_ms=quantile_estimate(by_loadgen, p),
            ours_ms=quantile_estimate(by_us, p),
            ratio=compared[name].ratio,
            p_value=compared[name].p_value,
            answer=compared[name].answer,
        )
        for name, p in PERCENTILES.items()
    )
    return ScenarioCheck(
        scenario="SingleStream" if found.rate_per_s is None else "Server",
        ours="closed loop" if found.rate_per_s is None else "open loop, same arrivals",
        rate_per_s=found.rate_per_s,
        requests=sum(len(ours.latency_ns) for _, ours in rounds),
        rounds=len(rounds),
        launches=len(found.launches),
        callback_ms=callback / 1e6,
        late_ms=_late(rounds),
        percentiles=checks,
        verdict=found.verdict,
    )


def _late(rounds: Sequence[Round]) -> dict[str, dict[str, float]] | None:
    ours = [mine.late_ns for _, mine in rounds if mine.late_ns is not None]
    if not ours:
        return None
    late = {"loadgen": np.concatenate([theirs.late_ns for theirs, _ in rounds]), "ours": np.concatenate(ours)}
    return {tool: {name: float(np.quantile(ns, PERCENTILES[name])) / 1e6 for name in ("p50", "p99")} for tool, ns in late.items()}


def verdict_of(judgement: Judgement, limit: LatencyLimit) -> LoadgenVerdict:
    """LoadGen's words in milliseconds, next to what it was asked to judge by."""
    early = judgement.early_stopping_ns
    return LoadgenVerdict(
        result="VALID" if judgement.valid else "INVALID",
        reasons=judgement.reasons,
        queries=judgement.queries,
        target=limit.quantile,
        target_ms=limit.limit_ms,
        early_stopping=judgement.early_stopping,
        early_stopping_ms=None if early is None else early / 1e6,
        percentiles_ms={name: ns / 1e6 for name, ns in judgement.percentiles_ns.items()},
    )
