"""Starting, asking and ending measuring workers, and keeping the parent out of their way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from ..core.artifact import ModelRef
from ..core.errors import InputError, RunFailed
from ..core.session_defaults import Device
from ..core.signature import Signature
from .machines.confine import Cell, Confinement
from .protocol import Answer, Block, BlockDone, Command, Ended, Open, Ready, Refused, Schedule, ScheduleDone, Stop

A = TypeVar("A", bound=Answer)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
WORKER = "liftgate.profile.worker"
_PATIENCE_S = 10.0


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A model to measure: how results name it, the path a worker loads it from, and the module that the worker runs."""

    ref: ModelRef
    path: Path
    signature: Signature
    worker: str = WORKER


class WorkerHandle:
    """A worker process with one model loaded; `module` is what it runs, `liftgate.profile.worker` or one that understands its commands.

    A `confinement` holds it to the memory of an instance and says on which device the model runs.
    """

    def __init__(
        self, name: str, cpus: Sequence[int], threads: int, *, module: str = WORKER, confinement: Confinement | None = None
    ) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process, closed in `kill`
        self._device: Device = "cpu" if confinement is None else confinement.placement.device
        environment = {**os.environ, "PYTHONHASHSEED": "0", **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
        environment |= {} if confinement is None else confinement.environment
        command = [sys.executable, "-P", "-m", module, ",".join(map(str, cpus))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment)
        self._cell: Cell | None = None
        if confinement is not None:
            try:
                self._cell = confinement.admit(self._process.pid)
            except RunFailed:
                self.kill()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, model: Path, store: Path, requests: Path, threads: int) -> Ready:
        """Load the model; raises InputError for what the user got wrong, RunFailed when the process dies."""
        command = Open(model=str(model), store=str(store), threads=threads, requests=str(requests), device=self._device)
        return self._ask(command, Ready)

    def block(self, indices: tuple[int, ...], warmup: int, *, batch: int = 1) -> BlockDone:
        """Time one block, `batch` requests per call; the caller sleeps in a read meanwhile."""
        return self._ask(Block(indices=indices, warmup=warmup, batch=batch), BlockDone)

    def schedule(
        self,
        indices: tuple[int, ...],
        arrivals_ns: tuple[int, ...],
        *,
        warmup: int = 0,
        servers: int = 1,
        give_up_ns: int | None = None,
        watch: bool = True,
    ) -> ScheduleDone:
        """Have requests answered when they are due (open loop); the caller sleeps in a read meanwhile."""
        command = Schedule(indices=indices, arrivals_ns=arrivals_ns, warmup=warmup, servers=servers, give_up_ns=give_up_ns, watch=watch)
        return self._ask(command, ScheduleDone)

    def stop(self) -> Ended:
        """End the process politely."""
        return self._ask(Stop(), Ended)

    def kill(self) -> None:
        """End the process whatever it is doing; may be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # closing flushes what a dead worker never read
                    continue
        try:
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=_PATIENCE_S)
        self._errors.close()
        if self._cell is not None:
            self._cell.close()

    def _ask(self, command: Command, kind: type[A]) -> A:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise AssertionError("a worker is always started with pipes")
        try:
            pipe_in.write(msgspec.json.encode(command) + b"\n")
            pipe_in.flush()
            line = pipe_out.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            words = self._last_words()
            killed = "" if self._cell is None else self._cell.killed
            if killed:
                raise RunFailed(f"measuring {self.name}", killed, fix="choose an instance with more memory, or make the model smaller")
            raise RunFailed(f"measuring {self.name}", f"the worker process died: {words}")
        answer = msgspec.json.decode(line, type=Answer)
        if isinstance(answer, Refused):
            raise InputError(answer.where, answer.problem, fix=answer.fix)
        if not isinstance(answer, kind):
            raise RunFailed(f"measuring {self.name}", f"the worker answered {type(answer).__name__} to {type(command).__name__}")
        return answer

    def _last_words(self) -> str:
        """The last line on its standard error, else how it ended."""
        try:
            code: int | str = self._process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = "still running"
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        ending = f"killed by signal {-code}" if isinstance(code, int) and code < 0 else f"exit code {code}"
        return f"{lines[-1]} ({ending})" if lines else ending


@contextmanager
def aside(cpus: Sequence[int]) -> Iterator[None]:
    """Keep every thread of this process off `cpus` inside the block, when other CPUs are left."""
    before = os.sched_getaffinity(0)
    rest = before - set(cpus)
    if not rest:
        yield
        return
    try:
        _pin_all_threads(rest)
        yield
    finally:
        _pin_all_threads(before)


def _pin_all_threads(cpus: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:  # the thread ended while we looked
            continue
