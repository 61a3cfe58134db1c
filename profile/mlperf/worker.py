"""`python -m liftgate.profile.mlperf.worker 0,1`: the measuring worker, which also lets MLPerf LoadGen ask the same session."""

from __future__ import annotations

import gc
from pathlib import Path

from ..protocol import Loadgen, LoadgenDone
from ..replay import wake_promptly
from ..worker import Worker, main, scheduled_ns, spent
from .loadgen import Settings, ask


class LoadgenWorker(Worker):
    """A loaded model that LoadGen may ask as well."""

    def loadgen(self, command: Loadgen) -> LoadgenDone:
        """Have LoadGen ask the requests at these positions, under the conditions of our own blocks and schedules."""
        feeds = [self.feeds[i] for i in command.indices]
        for feed in feeds[: command.warmup]:
            self.session.run(feed)
        wake_promptly()
        settings = Settings(rate_per_s=command.rate_per_s, target_ns=command.target_ns, percentile=command.percentile, seed=command.seed)
        before = scheduled_ns()
        gc.disable()
        asked = ask(self.session.run, feeds, settings, Path(command.folder))
        gc.enable()
        ran, waited = spent(before, scheduled_ns())
        arrays = (asked.order, asked.due_ns, asked.issue_ns, asked.latency_ns, asked.service_ns)
        order, due, issue, latency, service = (array.astype("<i8").tobytes() for array in arrays)
        return LoadgenDone(order=order, due=due, issue=issue, latency=latency, service=service, waited_ns=waited, ran_ns=ran)


if __name__ == "__main__":
    main(LoadgenWorker)
