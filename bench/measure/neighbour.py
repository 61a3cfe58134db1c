"""A noisy neighbour: stress-ng beside or on the measured cores, bounded in time and gone afterwards."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

Kind = Literal["cpu beside", "memory beside", "bursts on the same core"]
KINDS: tuple[Kind, ...] = ("cpu beside", "memory beside", "bursts on the same core")
# Even when nobody stops it, it ends.
_LONGEST_S = 600
_PR_SET_PDEATHSIG = 1


@contextmanager
def neighbour(kind: Kind, *, measured: Sequence[int]) -> Iterator[None]:
    """Run a neighbour of this kind inside the block; it dies with this process, however that ends.

    `cpu beside` keeps another core busy, `memory beside` streams through memory there, and `bursts on the same core` takes a sixth of the
    first measured core in slices. Raises FileNotFoundError without stress-ng (a Debian package).
    """
    program = shutil.which("stress-ng")
    if program is None:
        raise FileNotFoundError("stress-ng is not installed: apt-get install stress-ng")
    others = sorted(os.sched_getaffinity(0) - set(measured)) or list(measured)
    load = {
        "cpu beside": ["--cpu", "1", "--taskset", str(others[0])],
        "memory beside": ["--stream", "1", "--taskset", str(others[0])],
        "bursts on the same core": ["--cpu", "1", "--cpu-load", "16", "--taskset", str(measured[0])],
    }[kind]
    command = [program, *load, "--timeout", f"{_LONGEST_S}s", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
