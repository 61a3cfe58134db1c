"""The highest rate that meets a budget, searched for with trials that may be wrong.

A pure state machine: it says which rate to try next and is told what came out, so that several models can be searched for in turns. Every
trial is a test with an error of its own, and the highest of many rates that passed is more likely than others to have passed by luck: so
both ends of the interval are confirmed by new trials with fresh seeds before they are reported, and an end that is not confirmed is given
up for the next one.
"""

from __future__ import annotations

import math

import msgspec

from .result import Answer

# Ends of the interval further apart than this are narrowed down.
TOLERANCE = 1.10
# Times a rate must have met the budget: the first, and fresh ones.
_MEETS_NEEDED, _MISSES_NEEDED = 3, 2
# An unclear rate is tried this often before the search goes round it, and no rate more often than that.
_UNCLEAR_TRIES, _MOST_TRIES = 3, 6
# A rate so far below the first guess that nobody serves at it.
_LOWEST = 1 / 256
# First steps up and down are this large.
_STEP = 2.0


class Tally(msgspec.Struct, kw_only=True):
    """How often a rate met, missed, or left it unclear."""

    meets: int = 0
    misses: int = 0
    unclear: int = 0

    @property
    def tries(self) -> int:
        return self.meets + self.misses + self.unclear

    @property
    def answer(self) -> Answer:
        """What most clear trials said; a rate that is not confirmed after many is unclear."""
        worn = self.tries >= _MOST_TRIES
        if self.meets > self.misses and not (worn and self.meets < _MEETS_NEEDED):
            return "meets"
        return "misses" if self.misses > self.meets and not (worn and self.misses < _MISSES_NEEDED) else "unclear"


class Search:
    """Brackets the highest rate that meets the budget, starting at `start_per_s`; no rate above `ceiling_per_s` is tried."""

    def __init__(self, start_per_s: float, ceiling_per_s: float, *, tolerance: float = TOLERANCE, most_trials: int = 40) -> None:
        self._start, self._ceiling, self._tolerance = min(start_per_s, ceiling_per_s), ceiling_per_s, tolerance
        self._left = most_trials
        self.tallies: dict[float, Tally] = {}

    @property
    def meets_per_s(self) -> float | None:
        """The highest rate seen to meet the budget below every rate that misses it."""
        return max((r for r in self._rates("meets") if r < self._first_miss), default=None)

    @property
    def misses_per_s(self) -> float | None:
        """The lowest rate seen to miss it; None when none was."""
        return min(self._rates("misses"), default=None)

    @property
    def confirmed(self) -> bool:
        """Whether fresh trials agree at both ends; an end at the ceiling has only one."""
        met, missed = self.meets_per_s, self.misses_per_s
        below = met is not None and self.tallies[met].meets >= _MEETS_NEEDED
        above = missed is None or self.tallies[missed].misses >= _MISSES_NEEDED
        return below and above

    def tell(self, rate_per_s: float, answer: Answer) -> None:
        """What a trial at this rate said."""
        tally = self.tallies.setdefault(rate_per_s, Tally())
        match answer:
            case "meets":
                tally.meets += 1
            case "misses":
                tally.misses += 1
            case "unclear":
                tally.unclear += 1
        self._left -= 1

    def next_rate(self) -> float | None:
        """The rate to try next: a new one, or one to confirm; None when done."""
        if self._left <= 0:
            return None
        gap = self._gap()
        return gap if gap is not None else self._unconfirmed()

    @property
    def _first_miss(self) -> float:
        return min(self._rates("misses"), default=math.inf)

    def _rates(self, answer: Answer) -> list[float]:
        return [rate for rate, tally in self.tallies.items() if tally.answer == answer]

    def _gap(self) -> float | None:
        """A new rate between, below or above those that were tried; None when the ends are close enough."""
        if not self.tallies:
            return self._start
        met, missed = self.meets_per_s, self.misses_per_s
        if met is None:
            return self._lower()
        if missed is None:
            highest = max(self.tallies)
            if highest < self._ceiling:
                return min(highest * _STEP, self._ceiling)
        above = min((rate for rate in self.tallies if rate > met and self.tallies[rate].answer != "meets"), default=None)
        below = max((rate for rate in self.tallies if rate < missed), default=None) if missed is not None else None
        for rate in (above, below):
            if rate is not None and self.tallies[rate].answer == "unclear" and self.tallies[rate].tries < _UNCLEAR_TRIES:
                return rate
        if above is not None and above / met > self._tolerance:
            return math.sqrt(above * met)
        return math.sqrt(below * missed) if missed is not None and below is not None and missed / below > self._tolerance else None

    def _lower(self) -> float | None:
        """A rate below all that were tried, once the lowest of them has had its tries; None far below the first guess."""
        lowest = min(self.tallies)
        if self.tallies[lowest].answer == "unclear" and self.tallies[lowest].tries < _UNCLEAR_TRIES:
            return lowest
        return lowest / _STEP if lowest / _STEP >= self._start * _LOWEST else None

    def _unconfirmed(self) -> float | None:
        met, missed = self.meets_per_s, self.misses_per_s
        if met is not None and self.tallies[met].meets < _MEETS_NEEDED:
            return met
        if missed is not None and self.tallies[missed].misses < _MISSES_NEEDED:
            return missed
        return None
