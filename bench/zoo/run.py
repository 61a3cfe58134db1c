"""Every model in a process of its own: one that crashes or hangs costs its own row only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import msgspec

from .case import Case
from .outcome import Outcome

TIMEOUT_SECONDS = 180
AT_ONCE = 2


def run(cases: Iterable[Case], tell: Callable[[Outcome], None]) -> tuple[Outcome, ...]:
    """Outcomes in the order of `cases`; `tell` hears of each as it comes."""
    wanted = list(cases)
    found: dict[str, Outcome] = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in as_completed([pool.submit(run_one, case) for case in wanted]):
            outcome = future.result()
            found[outcome.key] = outcome
            tell(outcome)
    return tuple(found[case.key] for case in wanted)


def run_one(case: Case) -> Outcome:
    """The outcome of `case`; `crashed` with the signal, the exit code or the time limit where its process says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        target, said = Path(folder) / "outcome.json", Path(folder) / "stderr"
        command = [sys.executable, "-m", f"{__package__}.one", case.key, str(target)]
        with said.open("wb") as stderr:
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, cwd=folder, start_new_session=True)
            try:
                code = child.wait(TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                return _crashed(case, f"no result within {TIMEOUT_SECONDS} s")
        if target.is_file():
            return msgspec.json.decode(target.read_bytes(), type=Outcome)
        lines = said.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return _crashed(case, f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}: {lines[-1]}")


def _crashed(case: Case, reason: str) -> Outcome:
    return Outcome(package=case.package, name=case.name, kind=case.kind, verdict="crashed", reason=reason)
