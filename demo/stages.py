"""Telling a person which stage runs, how long it took, and where it stopped when it failed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ..core.progress import Progress


class Stages:
    """Numbered stages; `tell` gets one line at a time, `bar` opens a Progress for one stage, `clock` gives seconds."""

    def __init__(
        self,
        total: int,
        *,
        tell: Callable[[str], None],
        bar: Callable[[], AbstractContextManager[Progress]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tell = tell
        self.seconds: dict[str, float] = {}
        self._total = total
        self._bar = bar
        self._clock = clock
        self._begun = clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the first stage could have begun."""
        return self._clock() - self._begun

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Announce a stage, time it, and say so when it fails; the error goes on its way."""
        begun = self._clock()
        number = len(self.seconds) + 1
        self.tell(f"[{number}/{self._total}] {title}")
        try:
            with self._bar() as progress:
                yield progress
        except BaseException:
            self.tell(f"      stopped in stage {number} ({title}) after {self._clock() - begun:.1f} s")
            raise
        self.seconds[title] = self._clock() - begun
        self.tell(f"      {self.seconds[title]:.1f} s (total {self.elapsed:.0f} s)")
