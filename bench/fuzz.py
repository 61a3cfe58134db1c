"""What becomes of damaged model files: loaded, refused with a clear error, or a crash, which must not happen.

To look at one file of a run: `python -m liftgate.bench.fuzzing.worker FOLDER`, then
`python -m liftgate.bench.fuzzing.worker FOLDER SEED INDEX $((INDEX + 1)) 1` leaves it in FOLDER.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_WORKER = [sys.executable, "-P", "-m", "liftgate.bench.fuzzing.worker"]
_ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
OUTCOMES = ("loaded", "refused", "crash")


@dataclass(frozen=True)
class Case:
    """What became of the file number `index`, made from the seed `kind`."""

    index: int
    kind: str
    outcome: str
    detail: str


def run(files: int = 10_000, seed: int = 0) -> list[str]:
    """Lines of a Markdown table: outcomes by kind of file, and every crash with what reproduces it."""
    began = time.monotonic()
    cases = fuzz(files, seed, workers=os.cpu_count() or 1)
    return report(cases, seed=seed, seconds=time.monotonic() - began)


def report(cases: list[Case], *, seed: int, seconds: float) -> list[str]:
    """The lines of `run`."""
    counts = Counter((case.kind, case.outcome) for case in cases)
    kinds = list(dict.fromkeys(case.kind for case in cases))
    lines = [
        f"{len(cases):,} damaged files, seed {seed}, {seconds:.0f} s; "
        f"{sum(counts[kind, 'crash'] for kind in kinds)} crashes (other exceptions, signals, 20 s or 6 GiB exceeded, payloads run)",
        "",
        f"| kind | {' | '.join(OUTCOMES)} |",
        "|---|---|---|---|",
        *(f"| {kind} | {' | '.join(str(counts[kind, outcome]) for outcome in OUTCOMES)} |" for kind in kinds),
    ]
    contained = sum("ONNX Runtime (signal" in case.detail or "ONNX Runtime longer than" in case.detail for case in cases)
    lines += ["", f"Refused because ONNX Runtime ended its process or took too long on them, in the trial before the load: {contained}."]
    crashes = [f"- (seed {seed}, index {case.index}) {case.kind}: {case.detail}" for case in cases if case.outcome == "crash"]
    return [*lines, *(["", *crashes] if crashes else [])]


def fuzz(files: int, seed: int, *, workers: int) -> list[Case]:
    """Judge `files` damaged files, ordered by index, in `workers` processes at a time."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([*_WORKER, name], check=True, env=_ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with ThreadPoolExecutor(workers) as pool:
            found = pool.map(lambda first: judge_all(Path(name), seed, range(first, files, workers)), range(workers))
            return sorted((case for cases in found for case in cases), key=lambda case: case.index)


def judge_all(folder: Path, seed: int, indices: range) -> list[Case]:
    """Judge these files, with another process after each that ends one."""
    cases: list[Case] = []
    while len(cases) < len(indices):
        rest = indices[len(cases) :]
        command = [*_WORKER, str(folder), str(seed), str(rest.start), str(rest.stop), str(rest.step)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_ENVIRONMENT, text=True) as process:
            before = len(cases)
            started = False
            for line in process.stdout or ():
                if line.strip().isdigit():
                    started = True
                    continue
                kind, _, outcome = line.rstrip("\n").partition("\t")
                word, _, detail = outcome.partition(" ")
                cases.append(Case(index=indices[len(cases)], kind=kind, outcome=word, detail=detail))
                started = False
        if started:
            cases.append(Case(index=indices[len(cases)], kind="?", outcome="crash", detail=f"ended the process ({process.returncode})"))
        elif len(cases) == before:
            raise RuntimeError(f"the fuzzing worker does not start: {' '.join(command)}")
    return cases
