"""How often pytest-benchmark raises an alarm: a base is saved, a candidate compared with it by `--benchmark-compare-fail`.

All settings are its defaults but the time: it measures a benchmark for one second, here for as long as everything else in the table.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from ....core.requests import Requests
from ..neighbour import Kind
from .pair import SCRIPTS, Pair, interpreter, measured_pair, rows

FIELDS, THRESHOLDS = ("min", "mean", "median"), (2, 5)
RULES = tuple(f"{field}:{threshold}%" for field in FIELDS for threshold in THRESHOLDS)
_FAILED = re.compile(r"Field '(?P<field>\w+)' has failed PercentageRegressionCheck: (?P<percent>[\d.]+)")


def alarms(
    model_path: Path, requests: Requests, *, delay_share: float, repeats: int, seconds: float, neighbour: Kind | None = None
) -> list[str]:
    """Rows of the table: alarms of each rule in `repeats` comparisons with the same model, slower by `delay_share`."""
    python, counted = interpreter(), Counter[str]()
    with measured_pair(model_path, requests, delay_share=delay_share, repeats=repeats, seconds=seconds, beside=neighbour) as pair:
        for _ in range(repeats):
            shutil.rmtree(pair.folder / "saved", ignore_errors=True)
            _run(python, pair, 0.0, ["--benchmark-save=base"], allowed={0})
            # The strictest rules are asked, as it says by how much each was broken; one option, because only the last one counts.
            gate = ["--benchmark-compare=0001", "--benchmark-compare-fail", *(f"{field}:{min(THRESHOLDS)}%" for field in FIELDS)]
            failed = regressions(_run(python, pair, delay_share, gate, allowed={0, 1}))
            counted.update(f"{field}:{threshold}%" for field, percent in failed.items() for threshold in THRESHOLDS if percent > threshold)
        return rows("pytest-benchmark", RULES, counted, pair=pair, repeats=repeats, beside=neighbour)


def regressions(said: str) -> dict[str, float]:
    """Of what pytest-benchmark printed: the statistics that were worse than allowed, and by how many percent."""
    return {match["field"]: float(match["percent"]) for match in _FAILED.finditer(said)}


def _run(python: Path, pair: Pair, delay_share: float, options: list[str], *, allowed: set[int]) -> str:
    """What a run of the benchmark printed; an alarm is exit code 1 with the statistics that failed."""
    command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(pair.folder), str(SCRIPTS / "test_request.py")]
    limits = [f"--benchmark-max-time={pair.seconds / 2}", f"--benchmark-storage={pair.folder / 'saved'}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(SCRIPTS),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MODEL": str(pair.model),
        "FEEDS": str(pair.feeds),
        "DELAY_SHARE": str(delay_share),
        "CPU": str(pair.cpu),
    }
    done = subprocess.run(
        [*command, "-c", os.devnull, *limits, *options],
        cwd=pair.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode not in allowed or (done.returncode == 1 and not regressions(said)):
        raise RuntimeError(f"pytest-benchmark failed ({done.returncode}): {said[-3000:]}")
    return said
