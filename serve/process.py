"""The router as a child process on loopback, for tests, demos and replays."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO

from ..core.errors import RunFailed
from .port import check_port, free_port


class RouterProcess:
    """`with RouterProcess(experiment, logs=..., store=...) as router:` starts the router and waits until it is ready.

    It has a process group of its own; leaving the block stops it gently (SIGTERM), and by force if it does not end in `timeout_s`.
    `port` 0 takes a free one. Raises RunFailed with the router's own words when it does not become ready, InputError for a port in use.
    """

    def __init__(
        self,
        experiment: Path,
        *,
        logs: Path,
        store: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        timeout_s: float = 60.0,
        trace: Path | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.logs = logs
        self._arguments = [str(experiment), "--logs", str(logs), "--host", host]
        self._arguments += [] if trace is None else ["--trace", str(trace), "--trace-sample", "1"]
        self._store = store
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running router, which is also its process group."""
        if self._process is None:
            raise RunFailed("router", "is not running", fix="enter the context first")
        return self._process.pid

    def __enter__(self) -> RouterProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the router and return when it is ready."""
        if self.port == 0:
            self.port = free_port(self.host)
        check_port(self.host, self.port)  # else whoever listens there would be taken for the new router
        # -P: else a file in the current folder (random.py) would be imported in the place of a module of that name.
        command = [sys.executable, "-P", "-m", f"{__package__}", *self._arguments, "--port", str(self.port)]
        if self._store is not None:
            command += ["--store", str(self._store)]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop or kill
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int:
        """Stop gently and return the exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        try:
            status = self._process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL
        self._release()
        return status

    def kill(self) -> None:
        """SIGKILL to the whole process group."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._release()

    def _release(self) -> None:
        self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _wait_until_ready(self) -> None:
        process, errors = self._process, self._errors
        if process is None or errors is None:
            raise AssertionError("waits only for what was started")
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RunFailed("router", f"exited with {process.returncode}: {_tail(errors)}")
            if _answers_ready(self.host, self.port):
                return
            time.sleep(0.02)
        raise RunFailed("router", f"was not ready within {self._timeout_s:g} s: {_tail(errors)}")


def _answers_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _tail(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read()[-2000:].decode(errors="replace").strip() or "it said nothing"
