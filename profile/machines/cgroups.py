"""Control groups of the Linux kernel, v2 and v1: where this process may make its own, and what it limits in them.

A group is never made where it would escape limits that this process is under.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

# Files whose value, when it is not the one given, limits what runs in the group (cgroup-v2.rst).
_UNLIMITED = {"memory.max": "max", "memory.high": "max", "memory.swap.max": "max", "cpu.max": "max", "cpuset.cpus": ""}
_REMOVAL_S = 1.0


class NotAllowed(Exception):
    """Why this process cannot make groups that limit memory, in words that follow a colon."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a group's processes get: memory including the page cache they fill, no swap, and only these CPUs."""

    memory_bytes: int
    cpus: tuple[int, ...]


class Hierarchy(Protocol):
    """A place for groups, which are told apart by name; every method may raise OSError."""

    @property
    def version(self) -> str:
        """`v1` or `v2`."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the folders of groups lie."""

    def make(self, name: str, limits: Limits) -> None:
        """A new, empty group; none is left when it fails."""

    def join(self, name: str, pid: int) -> None:
        """Move a process into the group; what it has allocated so far stays charged to its old one."""

    def oom_kills(self, name: str) -> int:
        """How many of the group's processes the kernel has ended for want of memory."""


class Unified(msgspec.Struct, frozen=True):
    """cgroup v2: groups become children of `base`, which passes the memory controller on."""

    base: Path

    @property
    def version(self) -> str:
        return "v2"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.base,)

    def make(self, name: str, limits: Limits) -> None:
        group = self.base / name
        group.mkdir()
        try:
            _write(group / "memory.max", limits.memory_bytes)
            if (group / "memory.swap.max").exists():
                _write(group / "memory.swap.max", 0)
            if (group / "cpuset.cpus").exists():
                _write(group / "cpuset.cpus", ",".join(map(str, limits.cpus)))
        except OSError:
            remove(self, name)
            raise

    def join(self, name: str, pid: int) -> None:
        _write(self.base / name / "cgroup.procs", pid)

    def oom_kills(self, name: str) -> int:
        return _counter(self.base / name / "memory.events")


class Legacy(msgspec.Struct, frozen=True):
    """cgroup v1: groups become children of this process's own in `memory`, and in `cpuset` where that is mounted."""

    memory: Path
    cpuset: Path | None

    @property
    def version(self) -> str:
        return "v1"

    @property
    def folders(self) -> tuple[Path, ...]:
        return (self.memory,) if self.cpuset is None else (self.memory, self.cpuset)

    def make(self, name: str, limits: Limits) -> None:
        try:
            for folder in self.folders:
                (folder / name).mkdir()
            _write(self.memory / name / "memory.limit_in_bytes", limits.memory_bytes)
            swap = self.memory / name / "memory.memsw.limit_in_bytes"
            if swap.exists():
                _write(swap, limits.memory_bytes)
            else:
                _write(self.memory / name / "memory.swappiness", 0)
            if self.cpuset is not None:
                _write(self.cpuset / name / "cpuset.mems", _read(self.cpuset / "cpuset.mems"))
                _write(self.cpuset / name / "cpuset.cpus", ",".join(map(str, limits.cpus)))
        except OSError:
            remove(self, name)
            raise

    def join(self, name: str, pid: int) -> None:
        for folder in self.folders:
            _write(folder / name / "cgroup.procs", pid)

    def oom_kills(self, name: str) -> int:
        return _counter(self.memory / name / "memory.oom_control")


def find_hierarchy(root: Path) -> Hierarchy:
    """Where this process may try to make groups; raises NotAllowed with the reason."""
    own = [group for group in _own(root, None) if "memory" in _read(group.group / "cgroup.controllers").split()]
    if own:
        return _unified(own[0])
    memory, cpuset = list(_own(root, "memory")), list(_own(root, "cpuset"))
    if not memory:
        raise NotAllowed("no control groups with a memory controller are mounted")
    return Legacy(memory[0].group, cpuset[0].group if cpuset else None)


def own_limit_bytes(root: Path) -> int | None:
    """The memory that this process may use, by the groups it is in as far as they can be seen; None without a limit."""
    limits = []
    for controller, file in ((None, "memory.max"), ("memory", "memory.limit_in_bytes")):
        for own in _own(root, controller):
            folders = [folder for folder in (own.group, *own.group.parents) if folder.is_relative_to(own.top)]
            limits += [int(value) for value in (_read(folder / file) for folder in folders) if value.isdigit()]
    return min(limits, default=None)


def remove(hierarchy: Hierarchy, name: str) -> bool:
    """Remove a group whose processes have ended; the kernel may need a moment to see that. False when something still runs in it."""
    deadline = time.monotonic() + _REMOVAL_S
    for folder in hierarchy.folders:
        while True:
            try:
                (folder / name).rmdir()
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    return False
                time.sleep(0.01)
            else:
                break
    return True


class _Own(msgspec.Struct, frozen=True):
    """This process's group in one hierarchy, and the highest group of it that can be seen."""

    group: Path
    top: Path


class _Mount(msgspec.Struct, frozen=True):
    point: Path
    inside: str
    kind: str
    options: frozenset[str]


def _mounts(root: Path) -> Iterator[_Mount]:
    """Mounted hierarchies (proc(5), mountinfo: the fields after the lone dash are type, source and super options)."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), [*after.split(), "", "", ""][:3]
        if kind in ("cgroup", "cgroup2"):
            yield _Mount(root / fields[4].lstrip("/"), fields[3], kind, frozenset(options.split(",")))


def _own(root: Path, controller: str | None) -> Iterator[_Own]:
    """Where this process is in the hierarchy of a v1 controller, or in v2 (None)."""
    groups = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    for mount in _mounts(root):
        if (mount.kind == "cgroup2") != (controller is None) or (controller is not None and controller not in mount.options):
            continue
        for _, controllers, path in groups:
            named = controller in controllers.split(",") if controller is not None else not controllers
            # A container sees the part of the hierarchy that is mounted for it.
            inside = mount.inside.rstrip("/")
            if named and (path == inside or path.startswith(f"{inside}/")) and "/.." not in path:
                yield _Own(mount.point / path.removeprefix(inside).lstrip("/"), mount.point)


def _unified(own: _Own) -> Unified:
    """The nearest group at or above this process that passes the memory controller on, as groups with processes in them cannot."""
    here = own.group
    while "memory" not in _read(here / "cgroup.subtree_control").split():
        if here == own.top:
            raise NotAllowed("no control group above this process passes the memory controller on")
        for file, free in _UNLIMITED.items():
            value = _read(here / file).split(" ")[0]
            if value not in ("", free):
                raise NotAllowed(f"a group of its own would escape {file} = {value} of {here.name}")
        here = here.parent
    return Unified(here)


def _read(path: Path) -> str:
    """The text of a file of the kernel's, empty where there is none."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _write(path: Path, value: object) -> None:
    path.write_text(f"{value}\n", encoding="ascii")


def _counter(path: Path) -> int:
    rows = [line.split() for line in _read(path).splitlines()]
    return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)
