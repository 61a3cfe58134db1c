"""Seeded choices, and the values that damage likes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

INTS = (0, 1, -1, 2, 3, 7, 255, 256, 65535, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63), 1_000_000)
FLOATS = (0.0, -1.0, 1e38, -1e308, float("inf"), float("nan"))
WORDS = ("", "..", "/etc/passwd", "model", "torch", "x" * 300, "\u0000", "é", "__class__", "1 + 1", "$", "-1", "None", "Tensor")


class Chance:
    """Choices that depend on the seed alone."""

    def __init__(self, seed: Sequence[int]) -> None:
        self._random = np.random.default_rng(seed)

    def happens(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def below(self, count: int) -> int:
        """A number from 0 to `count` - 1, 0 where there is none."""
        return int(self._random.integers(0, max(count, 1)))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def noise(self, count: int) -> bytes:
        return self._random.bytes(count)

    def whole(self, value: int) -> int:
        """A number near `value`, or one that is special."""
        return self.pick([value + 1, value - 1, -value, value * 2, self.pick(INTS), self.below(100)])

    def damaged(self, content: bytes, others: Sequence[bytes]) -> bytes:
        """The content with bits flipped, runs overwritten, cut out or spliced in from `others`, or its end cut off."""
        changed = bytearray(content)
        at, span = self.below(len(changed) + 1), self.pick([1, 2, 4, 8, 64, 1024])
        match self.below(8):
            case 0 | 1 | 2:
                for _ in range(self.pick([1, 1, 2, 8, 64]) if changed else 0):
                    changed[self.below(len(changed))] ^= 1 << self.below(8)
            case 3:
                changed[at : at + span] = self.noise(span)
            case 4:
                changed[at : at + span] = bytes([self.pick([0, 255])]) * span
            case 5:
                del changed[at:]
            case 6:
                del changed[at : at + span]
            case _:
                other = self.pick(others)
                start = self.below(len(other) + 1)
                changed[at : at + span] = other[start : start + span]
        return bytes(changed)
