"""Signs that a measurement cannot be trusted: the machine was taken away, swapped, busy or drifting while it ran."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from scipy import stats

from .samples import Nanoseconds

# Shares of the measured time beyond which absolute times are not the model's own; undisturbed cloud machines stay well below both.
STEAL_LIMIT = 0.01
WAIT_LIMIT = 0.05
# Beyond this share not even ratios are trusted: models that wait for a core a third of the time are not what is compared any more.
LOST_LIMIT = 0.35
# 1 MiB of 4 KiB pages: a page or two of something unrelated does no harm.
SWAP_PAGES_LIMIT = 256
DRIFT_LIMIT = 0.10


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel has counted so far; a counter it does not keep is None."""

    throttled: int | None
    stolen_ticks: int | None
    total_ticks: int | None
    swapped_pages: int | None


def read_counters(cpus: Sequence[int], root: Path = Path("/")) -> Counters:
    """Counters of `cpus`, of this process's cgroup (v1 and v2) and of the machine's swap."""
    stolen, total = _ticks(cpus, root)
    return Counters(throttled=_throttled(root), stolen_ticks=stolen, total_ticks=total, swapped_pages=_swapped(root))


class Disturbances(msgspec.Struct, frozen=True, kw_only=True):
    """Why a measurement is spoiled: `fatal` altogether, `shared` only as absolute times, as both models of a round had their part in it."""

    fatal: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def disturbances(before: Counters, after: Counters, waits: Sequence[tuple[int, int] | None]) -> Disturbances:
    """What happened to the machine between two readings.

    `waits` has nanoseconds waited for a CPU and nanoseconds run per block, None where the kernel does not tell.
    """
    fatal: list[str] = []
    shared: list[str] = []
    if before.throttled is not None and after.throttled is not None and after.throttled > before.throttled:
        fatal.append(f"the container's CPU quota stopped the process {after.throttled - before.throttled} times (nr_throttled)")
    if (
        before.swapped_pages is not None
        and after.swapped_pages is not None
        and after.swapped_pages - before.swapped_pages > SWAP_PAGES_LIMIT
    ):
        fatal.append(f"the machine swapped {after.swapped_pages - before.swapped_pages} pages (at most {SWAP_PAGES_LIMIT})")
    stolen = _stolen_share(before, after)
    if stolen is not None and stolen > STEAL_LIMIT:
        reasons, limit = (fatal, LOST_LIMIT) if stolen > LOST_LIMIT else (shared, STEAL_LIMIT)
        reasons.append(f"the hypervisor took {stolen:.1%} of the CPU time (steal; at most {limit:.0%})")
    known = [wait for wait in waits if wait is not None]
    waited_ns, ran_ns = sum(waited for waited, _ in known), sum(ran for _, ran in known)
    if ran_ns > 0 and waited_ns / (waited_ns + ran_ns) > WAIT_LIMIT:
        share = waited_ns / (waited_ns + ran_ns)
        reasons, limit = (fatal, LOST_LIMIT) if share > LOST_LIMIT else (shared, WAIT_LIMIT)
        reasons.append(f"other processes held the CPU {share:.1%} of the time (run queue wait; at most {limit:.0%})")
    return Disturbances(fatal=tuple(fatal), shared=tuple(shared))


def _stolen_share(before: Counters, after: Counters) -> float | None:
    if before.stolen_ticks is None or after.stolen_ticks is None or before.total_ticks is None or after.total_ticks is None:
        return None
    total = after.total_ticks - before.total_ticks
    return (after.stolen_ticks - before.stolen_ticks) / total if total > 0 else None


def drift(launches: Sequence[Sequence[Nanoseconds]], limit: float = DRIFT_LIMIT) -> str | None:
    """A reason when the last third of a model's blocks is surely slower or faster than the first third, else None.

    Log medians of blocks are compared by Welch's t interval at 99 %; the whole interval must lie beyond `limit`.
    """
    medians = np.log([np.median(block) for blocks in launches for block in blocks])
    third = len(medians) // 3
    if third < 3:
        return None
    first, last = medians[:third], medians[-third:]
    change = float(last.mean() - first.mean())
    parts = np.array([first.var(ddof=1), last.var(ddof=1)]) / third
    error = math.sqrt(parts.sum())
    freedom = parts.sum() ** 2 / (parts**2 / (third - 1)).sum() if error > 0 else 2 * (third - 1)
    if abs(change) - stats.t.ppf(0.995, freedom) * error <= math.log1p(limit):
        return None
    slower = f"{abs(math.expm1(change)):.0%} {'slower' if change > 0 else 'faster'}"
    return f"the last third of the run was {slower} than the first (drift; at most {limit:.0%})"


def _ticks(cpus: Sequence[int], root: Path) -> tuple[int | None, int | None]:
    """Stolen and total ticks of `cpus` (proc(5), stat: user nice system idle iowait irq softirq steal)."""
    wanted = {f"cpu{c}" for c in cpus}
    try:
        rows = [line.split() for line in (root / "proc/stat").read_text(encoding="ascii").splitlines()]
    except OSError:
        return None, None
    fields = [[int(v) for v in row[1:9]] for row in rows if row and row[0] in wanted]
    if not fields or any(len(f) < 8 for f in fields):
        return None, None
    return sum(f[7] for f in fields), sum(sum(f) for f in fields)


def _swapped(root: Path) -> int | None:
    try:
        rows = [line.split() for line in (root / "proc/vmstat").read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return sum(int(row[1]) for row in rows if row[0] in ("pswpin", "pswpout"))


def _throttled(root: Path) -> int | None:
    """`nr_throttled` of this process's cgroup, v2 or v1, and of the groups above it as far as they are visible."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return None
    total = None
    for _, controllers, inside in groups:
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = ["sys/fs/cgroup"] if not controllers else ["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
        for mount in mounts:
            here = root / mount / inside.lstrip("/")
            for folder in (here, *here.parents):
                if not folder.is_relative_to(root / mount):
                    break
                count = _stat(folder / "cpu.stat")
                total = total if count is None else (total or 0) + count
    return total


def _stat(path: Path) -> int | None:
    try:
        rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if row[:1] == ["nr_throttled"]), None)
