"""The click model of the replay: who looks where, and what they click.

A user is shown the ten candidates with the highest served scores. Position `i` (from 0) is looked at with probability
`1 / log2(i + 2)`, the discount of NDCG: 1, 0.63, 0.5, ... An item looked at is clicked with probability 0.8 when the user really rated
it 4 or more later, and with probability 0.01 otherwise. Latency does not change clicks. Chance is a pure function of (seed, request,
item), so the same list is clicked in the same way whichever arm served it, and a difference between arms comes from the lists.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence

import msgspec

SENTENCE = (
    "Click model: the ten best items are shown; position i (from 0) is looked at with probability 1/log2(i+2); an item looked at is "
    "clicked with probability 0.8 if the user really rated it 4 or more later, else 0.01. Latency does not change clicks here."
)


class ClickModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probabilities of a click on an item that was looked at."""

    seed: int
    liked: float = 0.8
    other: float = 0.01

    def clicked(self, request_id: str, shown: Sequence[int], liked: Collection[int]) -> list[int]:
        """Positions (from 0) of `shown` that get a click; `liked` holds the items the user really rated 4 or more."""
        found = []
        for position, item in enumerate(shown):
            looks, acts = self._chance(request_id, item)
            if looks < examined(position) and acts < (self.liked if item in liked else self.other):
                found.append(position)
        return found

    def _chance(self, request_id: str, item: int) -> tuple[float, float]:
        """Two independent numbers in [0, 1) that depend on nothing but seed, request and item."""
        digest = hashlib.sha256(f"{self.seed}|{request_id}|{item}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:16], "big") / 2**64


def examined(position: int) -> float:
    """Probability that position `position` (from 0) is looked at."""
    return 1.0 / math.log2(position + 2)
