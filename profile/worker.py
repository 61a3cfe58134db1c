"""The measuring process: `python -m liftgate.profile.worker 0,1` pins itself to CPUs 0 and 1 and obeys commands from standard input.

One process loads one model. Thread counts of numeric libraries are in the environment before it starts (`launch.py`). Only `run` is
between the two clock readings; garbage collection waits until a block is over.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from ..core.errors import LiftgateError
from ..core.requests import Requests
from ..core.store import Store
from ..runtime.session import Session, SessionSettings, import_runtime, open_file, open_session
from .merge import merged
from .protocol import Answer, Block, BlockDone, Command, Ended, Loadgen, LoadgenDone, Open, Ready, Refused, Schedule, ScheduleDone
from .replay import WATCH_NS, replay, wake_promptly

_PROCESS = Path("/proc/self")


class Worker:
    """A loaded model and the requests it will be asked."""

    def __init__(self, command: Open) -> None:
        path = Path(command.model)
        # Importing the runtime is the cost of the installation, not of the model: it happens before the clock starts.
        importing = time.perf_counter_ns()
        import_runtime(path)
        imported = time.perf_counter_ns()
        requests = Requests.read(Path(command.requests))
        started = time.perf_counter_ns()
        settings = self.settings(command)
        # The parent has opened the file before: trying it again would count as loading time.
        self.session: Session = (
            open_file(path, settings) if path.is_file() else open_session(path, settings, store=Store(Path(command.store)))
        )
        loaded = time.perf_counter_ns()
        requests = requests.restrict(self.session.signature)
        first = next(requests.take([0]).feeds(self.session.signature))
        before = time.perf_counter_ns()
        self.session.run(first)
        answered = time.perf_counter_ns()
        self.ready = Ready(
            model=self.session.ref, import_ns=imported - importing, load_ns=loaded - started, first_request_ns=answered - before
        )
        self._peak_bytes = status_bytes("VmHWM")
        resident = status_bytes("VmRSS")
        self.feeds = list(requests.feeds(self.session.signature))
        prepared = status_bytes("VmRSS")
        self._prepared_bytes = None if resident is None or prepared is None else max(0, prepared - resident)
        _reset_peak()
        gc.freeze()

    def settings(self, command: Open) -> SessionSettings:
        """How the session is opened."""
        return SessionSettings(threads=command.threads, device=command.device)

    def block(self, command: Block) -> BlockDone:
        """Time the requests of one block, in nanoseconds each."""
        feeds = merged([self.feeds[i] for i in command.indices], command.batch)
        samples = np.zeros(len(feeds), dtype="<i8")
        run, clock = self.session.run, time.perf_counter_ns
        for feed in feeds[: command.warmup]:
            run(feed)
        before = scheduled_ns()
        gc.disable()
        for position, feed in enumerate(feeds):
            start = clock()
            run(feed)
            samples[position] = clock() - start
        gc.enable()
        after = scheduled_ns()
        ran, waited = spent(before, after)
        return BlockDone(samples=samples.tobytes(), waited_ns=waited, ran_ns=ran)

    def schedule(self, command: Schedule) -> ScheduleDone:
        """Answer requests at the times they are due (`replay.py`)."""
        feeds = [self.feeds[i] for i in command.indices]
        for feed in feeds[: command.warmup]:
            self.session.run(feed)
        wake_promptly()
        # The kernel forgets a thread's counters when it ends: the pool outlives the second reading.
        with ThreadPoolExecutor(command.servers) as pool:
            threads = pool if command.servers > 1 else None
            before = scheduled_ns()
            gc.disable()
            found = replay(
                self.session.run,
                feeds,
                command.arrivals_ns,
                servers=command.servers,
                threads=threads,
                give_up_ns=command.give_up_ns,
                watch_ns=WATCH_NS if command.watch else 0,
            )
            gc.enable()
            ran, waited = spent(before, scheduled_ns())
        latency, service, lag = (ns.astype("<i8").tobytes() for ns in (found.latency_ns, found.service_ns, found.lag_ns))
        return ScheduleDone(latency=latency, service=service, lag=lag, waited_ns=waited, ran_ns=ran)

    def loadgen(self, command: Loadgen) -> LoadgenDone:
        """Have MLPerf LoadGen ask the requests: `mlperf/worker.py` does."""
        raise AssertionError("this worker does not know MLPerf LoadGen")

    def end(self) -> Ended:
        """Memory over the whole life of the process, less what only measuring needed."""
        loading, peak, prepared = self._peak_bytes, status_bytes("VmHWM"), self._prepared_bytes
        known = None if loading is None or peak is None or prepared is None else max(loading, peak - prepared)
        return Ended(memory_bytes=known, swapped_bytes=status_bytes("VmSwap"))


def status_bytes(key: str, process: Path = _PROCESS) -> int | None:
    """A size from /proc/self/status in bytes; None where the kernel does not give it."""
    try:
        lines = (process / "status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _reset_peak() -> None:
    """Forget the peak that preparing the requests caused (proc(5), clear_refs)."""
    try:
        (_PROCESS / "clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def scheduled_ns(process: Path = _PROCESS) -> tuple[int, int] | None:
    """Nanoseconds all threads have run and have waited for a CPU (proc(5), schedstat); None where the kernel does not count."""
    ran = waited = 0
    try:
        for task in (process / "task").iterdir():
            fields = (task / "schedstat").read_text(encoding="ascii").split()
            ran, waited = ran + int(fields[0]), waited + int(fields[1])
    except (OSError, IndexError):
        return None
    return ran, waited


def spent(before: tuple[int, int] | None, after: tuple[int, int] | None) -> tuple[int | None, int | None]:
    """Nanoseconds run and waited between two readings of `scheduled_ns`; None where the kernel does not count."""
    return (None, None) if before is None or after is None else (after[0] - before[0], after[1] - before[1])


def serve(commands: BinaryIO, answers: BinaryIO, kind: type[Worker] = Worker) -> None:
    """Obey until Stop or the end of input; what the user got wrong is answered, anything else ends the process with its traceback."""
    decoder = msgspec.json.Decoder(Command)
    worker: Worker | None = None

    def answer(message: Answer) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")
        answers.flush()

    for line in commands:
        command = decoder.decode(line)
        if isinstance(command, Open):
            try:
                worker = kind(command)
            except LiftgateError as error:
                answer(Refused(where=error.where, problem=error.problem, fix=error.fix))
                return
            answer(worker.ready)
            continue
        if worker is None:
            raise AssertionError("the first command must be Open")
        if isinstance(command, Block):
            answer(worker.block(command))
        elif isinstance(command, Schedule):
            answer(worker.schedule(command))
        elif isinstance(command, Loadgen):
            answer(worker.loadgen(command))
        else:
            answer(worker.end())
            return


def main(kind: type[Worker] = Worker) -> None:
    """Pin, keep standard output for answers only (libraries may print), and serve."""
    os.sched_setaffinity(0, {int(cpu) for cpu in sys.argv[1].split(",")})
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers, kind)


if __name__ == "__main__":
    main()
