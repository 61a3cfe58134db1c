"""Instance profiles: what a rented machine has, and how far this machine can imitate it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

import msgspec

from ..core.config import read_toml
from ..core.errors import InputError, UnknownName
from ..core.machine import Machine, this_machine
from .result import Label

LOCAL = "local"
_FOLDER = Path(__file__).parent / "instances"


class Instance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine type. A `vcpu` is a hardware thread, so there are `vcpu / threads_per_core` cores; `gpu` and prices may be unknown."""

    name: str
    provider: str
    vcpu: int
    threads_per_core: int
    memory_gib: float
    cpu: str
    architecture: str
    features: tuple[str, ...]
    gpu: str | None = None
    price_usd_per_hour: float | None = None
    price_date: str | None = None
    price_source: str | None = None

    @property
    def cores(self) -> int:
        return self.vcpu // self.threads_per_core


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with how many threads a model runs to stand for an instance."""

    instance: Instance
    cpus: tuple[int, ...]
    threads: int
    label: Label
    note: str

    @property
    def memory_limit_bytes(self) -> int:
        return int(self.instance.memory_gib * 2**30)


@cache
def instances() -> dict[str, Instance]:
    """Every known instance by name; `local` comes first and is this machine."""
    machine = this_machine()
    here = Instance(
        name=LOCAL,
        provider="this machine",
        vcpu=machine.cores,
        threads_per_core=machine.threads_per_core,
        memory_gib=machine.memory_gib,
        cpu=machine.cpu,
        architecture=platform.machine(),
        features=machine.features,
    )
    return {LOCAL: here} | {i.name: i for i in (read_toml(p, Instance) for p in sorted(_FOLDER.glob("*.toml")))}


def find_instance(name: str, *, where: str = "--instance") -> Instance:
    """The instance called `name`; raises UnknownName."""
    known = instances()
    if name not in known:
        raise UnknownName(where, "instance", name, known, fix="see `profile instances`")
    return known[name]


def place(
    instance: Instance, *, threads: int | None = None, allowed: frozenset[int] | None = None, machine: Machine | None = None
) -> Placement:
    """How to imitate `instance` here: CPUs to pin to and threads to use (by default one per core of the instance).

    An instance with hyper-threads gets both threads of a core where this machine has them. Raises InputError when this machine cannot
    stand for the instance: too few cores, another architecture, or a GPU.
    """
    machine = machine or this_machine()
    cores = core_groups(allowed if allowed is not None else frozenset(os.sched_getaffinity(0)))
    where = f"instance {instance.name}"
    if threads is not None and threads < 1:
        raise InputError.mismatch("--threads", expected="at least 1", found=str(threads))
    if instance.name == LOCAL:
        wanted = threads or len(cores)
        if wanted > len(cores):
            raise InputError.mismatch("--threads", expected=f"at most {len(cores)}, the cores this process may use", found=str(wanted))
        cpus = (
            tuple(sorted(c for group in cores for c in group))
            if wanted == len(cores)
            else tuple(sorted(group[0] for group in cores[:wanted]))
        )
        note = f"measured here with {_count(wanted, 'thread')} on CPU {', '.join(map(str, cpus))}; files in the page cache"
        return Placement(instance=instance, cpus=cpus, threads=wanted, label="measured", note=note)
    if instance.gpu is not None:
        raise InputError(
            where, f"has a {instance.gpu}, which this machine cannot imitate", fix="measure on the instance itself with --instance local"
        )
    if instance.architecture != platform.machine():
        fix = "measure on the instance itself with --instance local"
        raise InputError(where, f"is {instance.architecture} and this machine is {platform.machine()}: other kernels would run", fix=fix)
    if instance.cores > len(cores):
        fix = "measure on the instance itself, or choose a smaller one"
        raise InputError(where, f"has {_count(instance.cores, 'core')} and this process may use {len(cores)}", fix=fix)
    width = min(instance.threads_per_core, max(len(group) for group in cores))
    chosen = [group[:width] for group in cores if len(group) >= width][: instance.cores]
    if len(chosen) < instance.cores:
        chosen = [group[:1] for group in cores[: instance.cores]]
        width = 1
    cpus = tuple(sorted(c for group in chosen for c in group))
    return Placement(
        instance=instance,
        cpus=cpus,
        threads=threads or instance.cores,
        label="emulated",
        note=_emulation_note(instance, machine, cpus, width),
    )


def _emulation_note(instance: Instance, machine: Machine, cpus: tuple[int, ...], width: int) -> str:
    """What is true of the instance and not of this imitation."""
    parts = [f"{_count(instance.cores, 'core')} of {machine.cpu} stand for {instance.cpu} (CPU {', '.join(map(str, cpus))})"]
    if width < instance.threads_per_core:
        parts.append(f"the instance has {instance.threads_per_core} threads per core, this machine gives it {width}")
    missing = [f for f in instance.features if f not in machine.features]
    if missing:
        parts.append(f"this CPU lacks {', '.join(missing)}, so other kernels run")
    extra = [f for f in machine.features if f not in instance.features and f.startswith(("avx512", "amx"))]
    if extra:
        parts.append(f"this CPU has {', '.join(extra)} in addition")
    parts.append("clock, caches and memory are this machine's; memory size is checked, not limited; files in the page cache")
    return "; ".join(parts)


def core_groups(allowed: frozenset[int]) -> list[tuple[int, ...]]:
    """Allowed CPUs grouped by physical core, the fullest cores first, then by number."""
    seen: set[int] = set()
    groups = []
    for cpu in sorted(allowed):
        if cpu in seen:
            continue
        group = tuple(sorted(_siblings(cpu) & allowed)) or (cpu,)
        seen.update(group)
        groups.append(group)
    return sorted(groups, key=lambda g: (-len(g), g))


def _siblings(cpu: int) -> set[int]:
    """The hardware threads that share `cpu`'s core, itself alone when the kernel does not say."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return {cpu}
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found | {cpu}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
