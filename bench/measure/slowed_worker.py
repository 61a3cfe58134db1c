"""A measuring worker whose session takes longer by a share of every request's time: the true slow-down of the benchmark."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np

from ...core.artifact import ModelRef
from ...core.signature import Signature
from ...profile.protocol import Open
from ...profile.worker import Worker, main
from ...runtime.session import Session

SHARE = "LIFTGATE_BENCH_SLOWED_BY"


class Slowed:
    """Another session, and a busy wait of `share` of what it took."""

    def __init__(self, session: Session, share: float) -> None:
        self._run, self._share = session.run, share
        self.ref: ModelRef = session.ref
        self.signature: Signature = session.signature

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        begun = time.perf_counter_ns()
        found = self._run(feeds)
        now = time.perf_counter_ns()
        until = now + int((now - begun) * self._share)
        while time.perf_counter_ns() < until:
            pass
        return found


class SlowedWorker(Worker):
    """Worker with a Slowed session."""

    def __init__(self, command: Open) -> None:
        super().__init__(command)
        self.session = Slowed(self.session, float(os.environ[SHARE]))


if __name__ == "__main__":
    main(SlowedWorker)
