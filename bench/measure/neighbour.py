"""Noisy neighbours: stress-ng beside a measurement, never longer than it and never left behind.

    with neighbour("cpu", measured=(0,)):
        measure()

stress-ng must be on the path. It gets a time limit, and the kernel ends it when this process goes, even by SIGKILL.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

Kind = Literal["cpu", "memory", "bursts"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS: dict[Kind, str] = {
    "cpu": "busy other core",
    "memory": "memory bandwidth from the other core",
    "bursts": "bursts on the measured core, 20 % of it",
}
# Bursts come and go within half a second, at random (slice 0); a whole core of arithmetic; a stream through 64 MiB.
_STRESS: dict[Kind, tuple[str, ...]] = {
    "cpu": ("--cpu", "1", "--cpu-method", "matrixprod"),
    "memory": ("--stream", "1", "--stream-l3-size", "64M"),
    "bursts": ("--cpu", "1", "--cpu-load", "20", "--cpu-load-slice", "0"),
}
# Becomes stress-ng after asking for SIGTERM at the parent's end (prctl(2), PR_SET_PDEATHSIG is 1); a parent gone by then is noticed.
_BECOME = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the measuring process is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
_STARTED_S, _PATIENCE_S = 0.5, 5.0


@contextmanager
def neighbour(kind: Kind, *, measured: Sequence[int], at_most_s: float = 900.0) -> Iterator[int]:
    """Keep a neighbour of this kind running inside the block; `measured` are the CPUs that are measured. Yields its process
    id, which is also its session's.

    Raises RuntimeError when it cannot run, or did not run all the time.
    """
    process = _start(kind, measured, at_most_s)
    try:
        time.sleep(_STARTED_S)
        _check(process, kind)
        yield process.pid
        _check(process, kind)
    finally:
        _stop(process)


def _start(kind: Kind, measured: Sequence[int], at_most_s: float) -> subprocess.Popen[bytes]:
    program = shutil.which("stress-ng")
    if program is None:
        raise RuntimeError("a noisy neighbour needs stress-ng on the path (Debian: apt-get install stress-ng)")
    cpus = os.sched_getaffinity(0)
    others = cpus - set(measured)
    if kind != "bursts" and not others:
        raise RuntimeError(f"a neighbour on the other core needs another CPU than {sorted(measured)}, this process may use {sorted(cpus)}")
    cpu = min(measured) if kind == "bursts" else min(others)
    limits = ("--timeout", f"{max(1, round(at_most_s))}s", "--quiet")
    started = [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), program, *_STRESS[kind], *limits]
    return subprocess.Popen([*started, "--taskset", str(cpu)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def _check(process: subprocess.Popen[bytes], kind: Kind) -> None:
    code = process.poll()
    if code is not None:
        said = b"" if process.stderr is None else process.stderr.read()
        raise RuntimeError(f"the neighbour '{kind}' ended before the measurement did (exit code {code}): {said.decode(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """stress-ng ends its own workers when asked to; a group that does not listen is killed."""
    process.terminate()
    try:
        process.wait(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=_PATIENCE_S)
    if process.stderr is not None:
        process.stderr.close()
