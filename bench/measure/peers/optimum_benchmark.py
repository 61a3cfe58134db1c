"""How often a threshold on optimum-benchmark's numbers raises an alarm; it has no gate of its own, so its users compare percentiles.

`track.py` says how it measures here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from pathlib import Path

from ....core.requests import Requests
from ..neighbour import Kind
from .pair import SCRIPTS, Pair, interpreter, measured_pair, rows

PERCENTILES, THRESHOLDS = ("p50", "p95", "p99"), (0.05, 0.02)
RULES = tuple(f"{name} > {threshold:.0%}" for name in PERCENTILES for threshold in THRESHOLDS)


def alarms(
    model_path: Path, requests: Requests, *, delay_share: float, repeats: int, seconds: float, neighbour: Kind | None = None
) -> list[str]:
    """Rows of the table: alarms of each rule in `repeats` comparisons with the same model, slower by `delay_share`."""
    python, counted = interpreter(), Counter[str]()
    with measured_pair(model_path, requests, delay_share=delay_share, repeats=repeats, seconds=seconds, beside=neighbour) as pair:
        with _started(python, pair) as process:
            for _ in range(repeats):
                base, candidate = (_percentiles(process, pair, share) for share in (0.0, delay_share))
                counted.update(
                    f"{name} > {threshold:.0%}"
                    for name in PERCENTILES
                    for threshold in THRESHOLDS
                    if candidate[name] > (1 + threshold) * base[name]
                )
        return rows("optimum-benchmark", RULES, counted, pair=pair, repeats=repeats, beside=neighbour)


def _started(python: Path, pair: Pair) -> subprocess.Popen[str]:
    """One process for all comparisons: importing it takes seconds, and every session still gets a process of its own."""
    quiet = {"LOG_LEVEL": "ERROR", "LOG_TO_FILE": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, **quiet, "PYTHONPATH": str(SCRIPTS)}
    return subprocess.Popen(
        [str(python), str(SCRIPTS / "track.py")],
        cwd=pair.folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(pair.folder / "errors").open("w"),
        text=True,
    )


def _percentiles(process: subprocess.Popen[str], pair: Pair, delay_share: float) -> dict[str, float]:
    if process.stdin is None or process.stdout is None:
        raise AssertionError("started with pipes")
    asked = {
        "model": str(pair.model),
        "feeds": str(pair.feeds),
        "delay_share": delay_share,
        "seconds": pair.seconds / 2,
        "cpu": pair.cpu,
    }
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"optimum-benchmark failed: {(pair.folder / 'errors').read_text()[-2000:]}")
    found: dict[str, float] = json.loads(line)
    return found
