"""A variant's process, as the benchmark sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from ...core.errors import RunFailed
from ..zoo import environment as zoo
from . import environment as peers
from .protocol import Answer, Command, Failed, Loaded, Spec, Stop
from .variants import Environment
from .wire import decode, encode

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_Expected = TypeVar("_Expected")


def interpreter(environment: Environment) -> Path:
    """The interpreter that has the tools of `environment`; makes it on first use."""
    match environment:
        case "main":
            return Path(sys.executable)
        case "zoo":
            return zoo.python()
        case "peers":
            return peers.python()


def one_thread(cache: Path) -> dict[str, str]:
    """This process's variables, with one thread for every library and torch.compile's results kept in `cache`."""
    return {**os.environ, **_ONE_THREAD, "TORCHINDUCTOR_CACHE_DIR": str(cache), "OLIVE_DISABLE_TELEMETRY": "1", "CUDA_VISIBLE_DEVICES": ""}


class Worker:
    """Started by construction; use `ready` before the first command. A context manager that ends the process."""

    def __init__(self, spec: Spec, environment: Environment, *, cache: Path, log: Path) -> None:
        self.name = spec.job.variant
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [str(interpreter(environment)), "-m", "liftgate.bench.optimize.worker", encode(spec).decode()]
        with log.open("wb") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=one_thread(cache))
        if process.stdin is None or process.stdout is None:
            raise AssertionError("a worker has pipes")
        self._process, self._commands, self._answers = process, process.stdin, process.stdout

    def ready(self) -> None:
        """Wait until the model is loaded; raises RunFailed."""
        self._answer(Loaded)

    def ask(self, command: Command, expected: type[_Expected]) -> _Expected:
        """Send a command and wait for its answer; raises RunFailed."""
        try:
            self._commands.write(encode(command) + b"\n")
            self._commands.flush()
        except BrokenPipeError:
            raise RunFailed(self.name, "its process has ended") from None
        return self._answer(expected)

    def _answer(self, expected: type[_Expected]) -> _Expected:
        line = self._answers.readline()
        if not line:
            raise RunFailed(self.name, f"its process ended with code {self._process.wait()}")
        answer: Answer = decode(line, Answer)
        if isinstance(answer, Failed):
            raise RunFailed(self.name, answer.reason)
        if not isinstance(answer, expected):
            raise AssertionError(f"{self.name} answered {type(answer).__name__}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process.poll() is None:
            try:
                self._commands.write(encode(Stop()) + b"\n")
                self._commands.flush()
                self._process.wait(timeout=10)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        self._answers.close()
        with suppress(BrokenPipeError):
            self._commands.close()
