from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from liftgate.bench.measure.neighbour import KINDS, Kind, neighbour

pytestmark = pytest.mark.skipif(shutil.which("stress-ng") is None, reason="needs stress-ng")
HOLDER = """
import time
from liftgate.bench.measure.neighbour import neighbour
with neighbour("bursts", measured=(min(__import__("os").sched_getaffinity(0)),), at_most_s=60) as session:
    print(session, flush=True)
    time.sleep(60)
"""


def stressing(session: int) -> list[int]:
    """Running processes of this session."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            found.append(int(folder.name))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_neighbour_runs_on_its_cpu_inside_the_block_and_nowhere_after_it(kind: Kind) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    with neighbour(kind, measured=cpus[:1], at_most_s=30) as session:
        until = time.monotonic() + 10  # on a busy machine its workers take a while
        while len(stressing(session)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        places = [os.sched_getaffinity(process) for process in stressing(session)]
        assert len(places) >= 2
        assert set.union(*places) == {cpus[0] if kind == "bursts" else cpus[1]}
    assert stressing(session) == []


def test_a_neighbour_that_ends_too_soon_spoils_the_block() -> None:
    with (
        pytest.raises(RuntimeError, match="the neighbour 'bursts' ended before the measurement did"),
        neighbour("bursts", measured=sorted(os.sched_getaffinity(0))[:1], at_most_s=1) as session,
    ):
        until = time.monotonic() + 20
        while stressing(session) and time.monotonic() < until:
            time.sleep(0.05)


def test_killing_whoever_measures_ends_its_neighbour() -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    session = int(holder.stdout.readline())
    assert stressing(session) != []
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    until = time.monotonic() + 20
    while stressing(session) and time.monotonic() < until:
        time.sleep(0.05)
    assert stressing(session) == []
