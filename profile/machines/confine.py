"""Holding workers to the memory of the instance they stand for, where the kernel lets this process do so.

    placement = limit_memory(place(instance))
    with confined(placement) as confinement:
        worker = WorkerHandle(name, placement.cpus, placement.threads, confinement=confinement)

Every worker gets a control group of its own, so that two models measured side by side do not share one instance's memory. Groups are named
after the process that made them and removed at the end; what a killed process left behind is removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ...core.errors import InputError, RunFailed
from .cgroups import Hierarchy, Limits, NotAllowed, find_hierarchy, own_limit_bytes, remove
from .instance import Placement
from .placement import CHECKED

SWITCH = "LIFTGATE_CGROUP"
_NUMBERS = itertools.count(1)
_NAME = re.compile(r"liftgate-(?P<pid>\d+)-(?P<start>\d+)-\d+")
_ROOT = Path("/")


class Cell:
    """The control group of one worker."""

    def __init__(self, hierarchy: Hierarchy, name: str, placement: Placement) -> None:
        self._hierarchy = hierarchy
        self._name = name
        self._placement = placement

    @property
    def killed(self) -> str:
        """A sentence when the kernel ended the worker for want of memory, empty when it did not."""
        if not self._hierarchy.oom_kills(self._name):
            return ""
        at = self._placement
        return f"it needs more than the {at.memory_limit_bytes / 2**30:g} GiB of {_whose(at)}: the kernel ended it (out of memory)"

    def close(self) -> None:
        """Remove the group; its worker must have ended."""
        remove(self._hierarchy, self._name)


class Confinement:
    """What holds workers to `placement`, whose note says it; without a hierarchy only affinity and the GPU that is shown to them."""

    def __init__(self, placement: Placement, hierarchy: Hierarchy | None) -> None:
        self.placement = placement
        self._hierarchy = hierarchy
        self._cells: list[Cell] = []

    @property
    def environment(self) -> dict[str, str]:
        """What a worker must be told before it starts: which GPU is the first it sees."""
        gpu = self.placement.gpu
        return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu.uuid}

    def admit(self, pid: int) -> Cell | None:
        """Move a worker that has just started into a group of its own; None where there is none. Raises RunFailed."""
        if self._hierarchy is None:
            return None
        name = _group_name(next(_NUMBERS))
        try:
            self._hierarchy.make(name, _limits(self.placement))
            cell = Cell(self._hierarchy, name, self.placement)
            self._hierarchy.join(name, pid)
        except OSError as error:
            remove(self._hierarchy, name)
            fix = f"{SWITCH}=off measures without a limit"
            raise RunFailed(f"confining to {self.placement.instance.name}", f"a control group failed: {error}", fix=fix) from error
        self._cells.append(cell)
        return cell

    def close(self) -> None:
        """Remove the groups whose workers have ended."""
        for cell in self._cells:
            cell.close()


def limit_memory(placement: Placement, *, root: Path = _ROOT) -> Placement:
    """The placement with the instance's memory as a limit, where this process may set one, and else with the reason in its note.

    An instance that this machine is needs no limit. Removes what killed processes left behind. Raises InputError for a value of
    LIFTGATE_CGROUP that is neither `auto` nor `off`.
    """
    if placement.label == "measured":
        return placement
    try:
        hierarchy = _usable(placement, root)
    except NotAllowed as reason:
        return msgspec.structs.replace(placement, memory=f"{CHECKED}: {reason}", memory_limited=False)
    share = "" if placement.parts == 1 else f" ({_whose(placement)})"
    limit = f"memory is limited to {placement.memory_limit_bytes / 2**30:g} GiB{share}, without swap (cgroup {hierarchy.version})"
    return msgspec.structs.replace(placement, memory=limit, memory_limited=True)


@contextmanager
def confined(placement: Placement, *, root: Path = _ROOT) -> Iterator[Confinement]:
    """Hold workers to a placement that `limit_memory` has limited; others only get their GPU shown. Raises RunFailed."""
    if not placement.memory_limited:
        yield Confinement(placement, None)
        return
    try:
        hierarchy = find_hierarchy(root)
    except NotAllowed as reason:
        raise RunFailed(f"confining to {placement.instance.name}", f"control groups could be made before: {reason}") from None
    confinement = Confinement(placement, hierarchy)
    try:
        yield confinement
    finally:
        confinement.close()


def _usable(placement: Placement, root: Path) -> Hierarchy:
    """A hierarchy in which a process could be confined just now; raises NotAllowed."""
    switch = os.environ.get(SWITCH, "auto")
    if switch not in ("auto", "off"):
        raise InputError.mismatch(SWITCH, expected="auto or off", found=repr(switch))
    if switch == "off":
        raise NotAllowed(f"{SWITCH}=off")
    own = own_limit_bytes(root)
    if own is not None and own < placement.memory_limit_bytes:
        raise NotAllowed(f"this process itself may use {own / 2**30:.3g} GiB, less than the instance has")
    hierarchy = find_hierarchy(root)
    _remove_stale(hierarchy)
    try:
        _try(hierarchy, placement)
    except OSError as error:
        raise NotAllowed(f"control groups ({hierarchy.version}) cannot be used here: {error.strerror}") from None
    return hierarchy


def _try(hierarchy: Hierarchy, placement: Placement) -> None:
    """Confine a process that does nothing: only the kernel knows all its rules about who may move whom."""
    name = _group_name(next(_NUMBERS))
    hierarchy.make(name, _limits(placement))
    idle = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        hierarchy.join(name, idle.pid)
    finally:
        idle.communicate()
        remove(hierarchy, name)


def _remove_stale(hierarchy: Hierarchy) -> None:
    """Remove the groups of processes that have ended; what still runs in them is left alone."""
    for folder in hierarchy.folders:
        for group in folder.glob("liftgate-*"):
            match = _NAME.fullmatch(group.name)
            if match is not None and _start_of(int(match["pid"])) != match["start"]:
                remove(hierarchy, group.name)


def _whose(placement: Placement) -> str:
    return placement.instance.name if placement.parts == 1 else f"one of {placement.parts} parts of {placement.instance.name}"


def _limits(placement: Placement) -> Limits:
    return Limits(memory_bytes=placement.memory_limit_bytes, cpus=placement.cpus)


def _group_name(number: int) -> str:
    return f"liftgate-{os.getpid()}-{_start_of(os.getpid())}-{number}"


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks: with it a number that is used again names another process. Empty when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]
