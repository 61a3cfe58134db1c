"""What the benchmark found, as it is written to JSON."""

from __future__ import annotations

import statistics

import msgspec
import numpy as np

from ...core.estimate import Estimate
from ...core.machine import Machine
from .judging import Kept, Order
from .roofline import Need, Peaks
from .timing import Times
from .variants import VARIANTS


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of one case; `times` by number of candidates. `failure` says why there is nothing to compare."""

    settings: str = ""
    build_s: float = 0.0
    kept: Kept | None = None
    order: Order | None = None
    times: dict[int, Times] = {}
    needs: dict[int, Need] = {}
    failure: str = ""

    @property
    def counts(self) -> bool:
        """Whether it keeps quality and was timed."""
        return self.kept is not None and self.kept.counts and bool(self.times)


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """All variants of one ranker by name; NDCG@10 of the original and of popularity on 500 validation requests."""

    name: str
    package: str
    ndcg: float
    popularity_ndcg: float
    outcomes: dict[str, Outcome]

    def median_ms(self, variant: str, candidates: int) -> float:
        return float(np.median(self.outcomes[variant].times[candidates].samples))

    def fastest(self, candidates: int, *, ours: bool) -> str | None:
        """The fastest of ours, or of the peers, that counts."""
        names = [
            name for name, found in self.outcomes.items() if VARIANTS[name].ours is ours and found.counts and candidates in found.times
        ]
        return min(names, key=lambda name: self.median_ms(name, candidates), default=None)

    def over(self, variant: str, other: str, candidates: int) -> Estimate:
        """How many times as long `other` takes as `variant`: more than 1 where `variant` is faster."""
        return self.outcomes[other].times[candidates].over(self.outcomes[variant].times[candidates])


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run."""

    machine: Machine
    core: int
    tools: dict[str, str]
    command: str
    seconds: float
    peaks: Peaks
    cases: tuple[CaseResult, ...]


def geometric_mean(ratios: list[float]) -> float | None:
    """None without ratios."""
    return statistics.geometric_mean(ratios) if ratios else None


def speedups(result: Result, candidates: int, variant: str | None, reference: str | None) -> list[float]:
    """Per case, how many times faster `variant` (None: our fastest) is than `reference` (None: the fastest peer); all of them count."""
    found = []
    for case in result.cases:
        mine = variant or case.fastest(candidates, ours=True)
        other = reference or case.fastest(candidates, ours=False)
        if mine is None or other is None or not all(name in case.outcomes and case.outcomes[name].counts for name in (mine, other)):
            continue
        value = case.over(mine, other, candidates).value
        if value is not None:
            found.append(value)
    return found
