"""py-spy: stacks of a running process, and what it leaves unsaid."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Literal

import msgspec

from ...core.errors import InputError, RunFailed

# More than this slows the sampled process down noticeably (py-spy issue 872).
SAMPLES_PER_S = 100
Format = Literal["flamegraph", "speedscope", "raw", "chrometrace"]

_PATIENCE_S = 60.0
_PTRACE_FIX = "sampling needs ptrace: in a container add the capability SYS_PTRACE, on a host set kernel.yama.ptrace_scope=0 or be root"
_BEHIND = re.compile(r"([\d.]+)s behind in sampling")
_COUNTS = re.compile(r"Samples: (\d+) Errors: (\d+)")


class Sampled(msgspec.Struct, frozen=True, kw_only=True):
    """What py-spy did: `begun_ns` on the monotonic clock (a few milliseconds early), and what a reader of its result must know."""

    begun_ns: int
    samples: int
    notes: tuple[str, ...]


def check_traceable(pid: int, *, where: str = "--pid", proc: Path = Path("/proc")) -> None:
    """Raise InputError unless this process is there and the system lets us look into it."""
    if pid == os.getpid():
        raise InputError.mismatch(where, expected="another process", found=f"{pid}, this command itself")
    process = proc / str(pid)
    if not process.exists():
        fix = "look it up: pgrep -f 'liftgate serve'"
        raise InputError.mismatch(where, expected="the id of a running process", found=f"{pid}, which nothing has", fix=fix)
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text(errors="replace").splitlines() if ":\t" in line)
    if status.get("State", "").startswith("Z"):
        raise InputError.mismatch(where, expected="a running process", found=f"{pid}, which has ended")
    tracer = status.get("TracerPid", "0").strip()
    if tracer != "0":
        fix = "only one debugger or sampler may look at a process: end the other one"
        raise InputError.mismatch(where, expected="a process that nobody traces", found=f"{pid}, traced by process {tracer}", fix=fix)
    try:
        # The kernel asks for this what it asks for ptrace: same user, capabilities, and Yama.
        (process / "mem").open("rb").close()
    except OSError as error:
        reason = f"{pid}: {error.strerror}; kernel.yama.ptrace_scope is {_yama(proc)}"
        raise InputError.mismatch(where, expected="a process that may be traced", found=reason, fix=_PTRACE_FIX) from None


def _yama(proc: Path) -> str:
    try:
        return (proc / "sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        return "not set"


def sample(
    pid: int,
    out: Path,
    kind: Format,
    *,
    seconds: float,
    native: bool,
    idle: bool = False,
    where: str = "profile flame",
    meanwhile: Callable[[], None] | None = None,
) -> Sampled:
    """Sample a process for `seconds` into `out`, calling `meanwhile` over and over; raises RunFailed with py-spy's own words.

    py-spy ends with 0 whatever became of the process, so that is looked at here.
    """
    sampler = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if sampler is None:
        raise RunFailed(where, "py-spy is not installed", fix="pip install py-spy")
    command = [sampler, "record", "--pid", str(pid), "--format", kind, "--output", str(out), "--rate", str(SAMPLES_PER_S)]
    command += ["--duration", f"{max(1, round(seconds))}", *(["--native"] if native else []), *(["--idle"] if idle else [])]
    environment = {**os.environ, "RUST_BACKTRACE": "0"}
    # A file and not a pipe: nobody reads while it samples, and a full pipe would stop it.
    with TemporaryFile() as words:
        begun = time.perf_counter_ns()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, env=environment)
        try:
            _wait(process, seconds + _PATIENCE_S, meanwhile, where)
        finally:
            _end(process)
        told = _read(words)
    took_s = (time.perf_counter_ns() - begun) / 1e9
    if process.returncode != 0 or not out.exists() or out.stat().st_size == 0:
        raise _failure(where, told, process.returncode, running=_running(pid))
    counts = _COUNTS.search(told)
    samples = int(counts[1]) if counts else -1
    if samples == 0:
        fix = "send requests while it samples, or count waiting threads as well with --idle"
        raise RunFailed(where, "no thread of the process was busy when py-spy looked", fix=fix)
    return Sampled(begun_ns=begun, samples=samples, notes=_notes(told, counts, running=_running(pid), took_s=took_s, seconds=seconds))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask py-spy to stop, so that it lets go of the process it has paused; by force when it does not."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], patience_s: float, meanwhile: Callable[[], None] | None, where: str) -> None:
    """Until py-spy ends; raises RunFailed when it does not."""
    deadline = time.monotonic() + patience_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise RunFailed(where, f"py-spy did not end within {patience_s:.0f} s", fix="try --python-only: native frames take it longest")
        if meanwhile is not None:
            meanwhile()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0 if meanwhile is not None else 0.2)


def _read(words: IO[bytes]) -> str:
    words.seek(0)
    return words.read().decode(errors="replace")


def _failure(where: str, told: str, code: int, *, running: bool) -> RunFailed:
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    said = next((line.removeprefix("Error: ") for line in lines if line.startswith("Error:")), lines[-1] if lines else f"exit code {code}")
    if not running:
        return RunFailed(where, f"the process ended before py-spy could look at it ({said})")
    fix = "only Python processes can be sampled" if "python" in said.lower() else _PTRACE_FIX
    return RunFailed(where, f"py-spy could not sample the process: {said}", fix=fix)


def _notes(told: str, counts: re.Match[str] | None, *, running: bool, took_s: float, seconds: float) -> tuple[str, ...]:
    notes = []
    behind = [float(match) for match in _BEHIND.findall(told)]
    if behind:
        notes.append(
            f"py-spy fell {max(behind):.1f} s behind, so shares may be wrong and the process was slowed down: try --python-only, "
            "or fewer threads"
        )
    if counts and int(counts[2]) > 0.05 * int(counts[1]):
        notes.append(f"{counts[2]} stacks could not be read, against {counts[1]} that could: shares may be wrong")
    if not running:
        notes.append(f"the process ended after about {took_s:.0f} of {seconds:.0f} s: what follows is from the time before")
    return tuple(notes)


def _running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return False
