"""Where a model's time goes: py-spy's stacks of a worker while it answers requests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..core.errors import InputError, RunFailed
from ..core.files import new_file
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.store import Store
from .inputs import Model, check_duration, load_placements, load_requests, load_subjects
from .instance import LOCAL
from .launch import WorkerHandle, aside

# More than this slows the sampled process down noticeably (py-spy issue 872).
_SAMPLES_PER_S = 100
_FORMATS = {".svg": "flamegraph", ".json": "speedscope", ".txt": "raw"}
_MOST_REQUESTS = 256
# The sampler's end is looked for between blocks, so a block must not last: this is also how late the end may be seen.
_BLOCK_S = 0.2


def flame(
    model: Model,
    out: Path,
    *,
    requests: Requests | Path | str | None = None,
    seconds: float = 10.0,
    native: bool = True,
    threads: int | None = None,
    seed: int = 0,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a flame graph (`.svg`), a speedscope profile (`.json`) or raw stacks (`.txt`) of `model` answering requests for `seconds`.

    With `native` the runtime's own frames show, not only Python's. Times under a sampler are never used to judge. Raises RunFailed when
    py-spy may not look at the process.
    """
    kind = _FORMATS.get(out.suffix)
    if kind is None:
        raise InputError.mismatch("--out", expected=f"a file ending in {', '.join(_FORMATS)}", found=repr(out.name))
    check_duration(seconds, 1)
    store = Store.of(store)
    placement = load_placements([LOCAL], threads)[0]
    subject = load_subjects([model], store)[0]
    asked = load_requests(requests, [subject], seed)
    few = asked.take(range(min(len(asked), _MOST_REQUESTS)))
    worker = WorkerHandle(subject.ref.name, placement.cpus, placement.threads)
    try:
        with TemporaryDirectory(prefix="liftgate-") as folder, new_file(out) as temporary, aside(placement.cpus):
            file = Path(folder) / "requests.parquet"
            few.write(file)
            worker.open(subject.path, store.root, file, placement.threads)
            _record(worker, temporary, kind, seconds, native=native, requests=len(few), progress=progress)
    finally:
        worker.kill()
    return out


def block_size(request_s: float, requests: int) -> int:
    """How many of `requests` are asked at a time when one takes `request_s`: about 0.2 s of them, at least one."""
    return max(1, min(requests, int(_BLOCK_S / max(request_s, 1e-9))))


def _record(worker: WorkerHandle, out: Path, kind: str, seconds: float, *, native: bool, requests: int, progress: Progress) -> None:
    """Sample the worker while it answers, until py-spy is done; raises RunFailed with py-spy's own words."""
    sampler = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if sampler is None:
        raise RunFailed("profile flame", "py-spy is not installed", fix="pip install py-spy")
    options = ["--pid", str(worker.pid), "--format", kind, "--output", str(out), "--rate", str(_SAMPLES_PER_S)]
    options += ["--duration", f"{max(1, round(seconds))}"]
    command = [sampler, "record", *options, *(["--native"] if native else [])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        begun = time.monotonic()
        asked, size = 0, 1
        while process.poll() is None:
            done = worker.block(tuple((asked + i) % requests for i in range(size)), 0)
            asked, size = asked + size, block_size(float(np.frombuffer(done.samples, dtype="<i8").mean()) / 1e9, requests)
            progress("sampling", min(round(seconds), int(time.monotonic() - begun)), round(seconds))
        errors = (process.stderr.read() if process.stderr else "").strip().splitlines()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()
    if process.returncode != 0 or out.stat().st_size == 0:
        reason = errors[-1] if errors else f"exit code {process.returncode}"
        fix = "sampling needs ptrace: in a container add the capability SYS_PTRACE, on a host set kernel.yama.ptrace_scope=0"
        raise RunFailed("profile flame", f"py-spy could not sample the worker: {reason}", fix=fix)
