from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from liftgate.profile.health import Counters, Disturbances, disturbances, drift, read_counters

CALM = Counters(throttled=3, stolen_ticks=10, total_ticks=1000, swapped_pages=5)


def test_a_calm_run_has_no_reasons() -> None:
    after = Counters(throttled=3, stolen_ticks=15, total_ticks=2000, swapped_pages=6)
    assert disturbances(CALM, after, [(1, 1000), None]) == Disturbances()


def test_every_disturbance_is_named() -> None:
    after = Counters(throttled=5, stolen_ticks=40, total_ticks=2000, swapped_pages=1000)
    found = disturbances(CALM, after, [(40, 500), (60, 400)])
    assert [word in reason for word, reason in zip(("2 times", "995 pages"), found.fatal, strict=True)] == [True] * 2
    assert [word in reason for word, reason in zip(("3.0%", "10.0%"), found.shared, strict=True)] == [True] * 2


def test_a_core_that_is_mostly_elsewhere_spoils_ratios_too() -> None:
    after = Counters(throttled=3, stolen_ticks=510, total_ticks=2000, swapped_pages=5)
    assert len(disturbances(CALM, after, [(400, 600)]).fatal) == 2


def test_counters_the_kernel_does_not_keep_accuse_nobody() -> None:
    nothing = Counters(throttled=None, stolen_ticks=None, total_ticks=None, swapped_pages=None)
    assert disturbances(nothing, nothing, [None]) == Disturbances()


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_counters_are_read_from_cgroup_v2(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/stat": "cpu  1 1 1 1 1 1 1 1\ncpu0 10 0 5 80 0 0 0 5 0 0\ncpu1 1 0 0 99 0 0 0 0 0 0\n",
            "proc/vmstat": "pswpin 4\npswpout 6\nother 1\n",
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 1\nnr_throttled 2\n",
            "sys/fs/cgroup/a/cpu.stat": "nr_throttled 7\n",
        },
    )
    assert read_counters([0], tmp_path) == Counters(throttled=9, stolen_ticks=5, total_ticks=100, swapped_pages=10)


def test_counters_are_read_from_cgroup_v1(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/x\n",
            "sys/fs/cgroup/cpu,cpuacct/x/cpu.stat": "nr_periods 9\nnr_throttled 4\n",
        },
    )
    assert read_counters([0], tmp_path) == Counters(throttled=4, stolen_ticks=None, total_ticks=None, swapped_pages=None)


def test_drift_is_told_from_noise() -> None:
    rng = np.random.default_rng(0)

    def blocks(slope: float) -> list[list[np.ndarray]]:
        return [[(1e6 * (1 + slope * i) * np.exp(rng.normal(0, 0.05, 50))).astype(np.int64) for i in range(30)]]

    assert drift(blocks(0.0)) is None
    assert drift(blocks(0.002)) is None
    # From round 0-9 to 20-29 the factor is (1 + 0.02 * 24.5) / (1 + 0.02 * 4.5) = 1.37; with -0.02 it is 0.51 / 0.91 = 0.56.
    assert re.search(r"3[678]% slower than the first", drift(blocks(0.02)) or "")
    assert re.search(r"4[345]% faster than the first", drift(blocks(-0.02)) or "")
