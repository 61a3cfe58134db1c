"""How far this machine can stand for an instance, and on which CPUs, threads and GPU a model then runs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

from ...core.errors import InputError
from ...core.gpu import GpuFacts, GpuReading, read_gpus
from ...core.machine import Machine, this_machine
from ...core.plural import plural
from .gpu_match import find_gpu
from .instance import LOCAL, Instance, Placement
from .recognise import Recognised

CHECKED = "memory is checked, not limited"
# An operating system sees a little less memory than the instance was given, and never more.
_LEAST_MEMORY, _MOST_MEMORY = 0.85, 1.05
_ELSEWHERE = "measure on the instance itself, where `--instance` with its name or `local` is measured"


def place(
    instance: Instance,
    *,
    threads: int | None = None,
    allowed: frozenset[int] | None = None,
    machine: Machine | None = None,
    gpus: GpuReading | None = None,
    recognised: Recognised | None = None,
) -> Placement:
    """How to stand for `instance` here: CPUs to pin to, threads to use (by default one per core of the instance), and a GPU.

    Where this machine was recognised as the instance, numbers are measured. Elsewhere they are emulated: an instance with hyper-threads
    gets both threads of a core where this machine has them. Of an instance with more cores than this machine, `threads` of them can be
    imitated, and numbers are extrapolated from that part. Raises InputError when this machine cannot stand for the instance: too few
    cores, another architecture, or another GPU.
    """
    machine = machine or this_machine()
    allowed = allowed if allowed is not None else frozenset(os.sched_getaffinity(0))
    cores = core_groups(allowed)
    if threads is not None and threads < 1:
        raise InputError.mismatch("--threads", expected="at least 1", found=str(threads))
    if instance.name == LOCAL:
        return _local(instance, threads, cores, recognised)
    if threads is not None and threads > instance.vcpu:
        raise InputError.mismatch("--threads", expected=f"at most {instance.vcpu}, the vCPU of {instance.name}", found=str(threads))
    gpu = find_gpu(instance, gpus if gpus is not None else read_gpus()) if instance.gpu else None
    differs = ""
    if recognised is not None and recognised.instance == instance.name:
        differs = _differs(instance, machine, allowed)
        if not differs:
            told = f"this machine is {instance.name} ({recognised.how}), measured on CPU {_listed(allowed)}{_gpu_note(instance, gpu)}"
            standing, cpus = f"{told}; files in the page cache", tuple(sorted(allowed))
            return Placement(instance=instance, cpus=cpus, threads=threads or instance.cores, label="measured", standing=standing, gpu=gpu)
    _refuse_other_kernels(instance)
    parts = [f"this machine says it is {instance.name}, but {differs}"] if differs else []
    if instance.cores > len(cores):
        return _part(instance, threads, cores, machine, parts)
    cpus, width = _choose(instance, instance.cores, cores)
    parts.append(_stands(instance.cores, machine, instance, cpus))
    parts += _emulation_notes(instance, machine, width, memory_gib=instance.memory_gib)
    if threads is not None and threads > len(cpus):
        parts.append(f"{threads} threads share {plural(len(cpus), 'CPU')}")
    standing = "; ".join(parts) + _gpu_note(instance, gpu)
    wanted = threads or instance.cores
    return Placement(instance=instance, cpus=cpus, threads=wanted, label="emulated", standing=standing, memory=CHECKED, gpu=gpu)


def _part(instance: Instance, threads: int | None, cores: list[tuple[int, ...]], machine: Machine, notes: list[str]) -> Placement:
    """Some cores that stand for as many times themselves as the instance has; raises InputError."""
    sizes = [n for n in range(1, len(cores) + 1) if instance.cores % n == 0]
    choices = f"{', '.join(map(str, sizes))} (of all servers together)"
    if threads is None or instance.gpu is not None:
        part = "" if instance.gpu else f"; or extrapolate from some of its cores: --threads {choices}"
        problem = f"has {instance.cores} cores and this process may use {len(cores)}"
        raise InputError(f"instance {instance.name}", problem, fix=f"{_ELSEWHERE}, or choose a smaller one{part}")
    if threads not in sizes:
        expected = f"to extrapolate {instance.name} with its {instance.cores} cores: {choices}"
        raise InputError.mismatch("--threads", expected=expected, found=str(threads))
    cpus, width = _choose(instance, threads, cores)
    count = instance.cores // threads
    told = [
        *notes,
        f"only {threads} of the {instance.cores} cores of {instance.name} are here",
        _stands(threads, machine, instance, cpus),
        f"the whole is taken for {count} such parts that do not slow each other down, as shared caches, memory and clock would",
        *_emulation_notes(instance, machine, width, memory_gib=instance.memory_gib / count),
    ]
    standing = "; ".join(told)
    return Placement(instance=instance, cpus=cpus, threads=threads, label="extrapolated", standing=standing, memory=CHECKED, parts=count)


def _choose(instance: Instance, count: int, cores: list[tuple[int, ...]]) -> tuple[tuple[int, ...], int]:
    """CPUs for `count` cores of `instance`, and how many threads of each: fewer than the instance's where there are no more."""
    width = min(instance.threads_per_core, max(len(group) for group in cores))
    chosen = [group[:width] for group in cores if len(group) >= width][:count]
    if len(chosen) < count:
        width, chosen = 1, [group[:1] for group in cores[:count]]
    return tuple(sorted(c for group in chosen for c in group)), width


def _local(instance: Instance, threads: int | None, cores: list[tuple[int, ...]], recognised: Recognised | None) -> Placement:
    wanted = threads or len(cores)
    if wanted > len(cores):
        raise InputError.mismatch("--threads", expected=f"at most {len(cores)}, the cores this process may use", found=str(wanted))
    used = [c for group in cores for c in group] if wanted == len(cores) else [group[0] for group in cores[:wanted]]
    standing = f"measured here with {plural(wanted, 'thread')} on CPU {_listed(used)}; files in the page cache"
    if recognised is not None and recognised.instance is not None:
        standing += f"; this machine is {recognised.instance} ({recognised.how})"
    return Placement(instance=instance, cpus=tuple(sorted(used)), threads=wanted, label="measured", standing=standing)


def _differs(instance: Instance, machine: Machine, allowed: frozenset[int]) -> str:
    """What of this process is less than the whole instance, or not as its profile says; empty when it is all there."""
    if len(allowed) != instance.vcpu:
        return f"this process may use {plural(len(allowed), 'CPU')} and not {instance.vcpu}"
    if not _LEAST_MEMORY <= machine.memory_gib / instance.memory_gib <= _MOST_MEMORY:
        return f"it has {machine.memory_gib:g} GiB of memory and not {instance.memory_gib:g}"
    return ""


def _refuse_other_kernels(instance: Instance) -> None:
    here = platform.machine()
    if instance.architecture != here:
        problem = f"is {instance.architecture} and this machine is {here}: other kernels would run"
        raise InputError(f"instance {instance.name}", problem, fix=_ELSEWHERE)


def _stands(count: int, machine: Machine, instance: Instance, cpus: tuple[int, ...]) -> str:
    stand = "stands" if count == 1 else "stand"
    return f"{plural(count, 'core')} of {machine.cpu} {stand} for {instance.cpu} (CPU {_listed(cpus)})"


def _emulation_notes(instance: Instance, machine: Machine, width: int, *, memory_gib: float) -> list[str]:
    """What is true of the instance, or of the part with `memory_gib` that is imitated, and not of this imitation."""
    parts = []
    if width < instance.threads_per_core:
        parts.append(f"the instance has {instance.threads_per_core} threads per core, this machine gives it {width}")
    missing = [f for f in instance.features if f not in machine.features]
    if missing:
        parts.append(f"this CPU lacks {', '.join(missing)}, so other kernels run")
    extra = [f for f in machine.features if f not in instance.features and f.startswith(("avx512", "amx"))]
    if extra:
        parts.append(f"this CPU has {', '.join(extra)} in addition")
    if machine.memory_gib < memory_gib * _LEAST_MEMORY:
        parts.append(f"this machine has {machine.memory_gib:g} GiB of memory, the instance {memory_gib:g}")
    parts.append("clock, caches and memory bandwidth are this machine's; files in the page cache")
    return parts


def _gpu_note(instance: Instance, gpu: GpuFacts | None) -> str:
    if instance.gpu is None or gpu is None:
        return ""
    return f"; on one {'' if instance.gpu.count == 1 else f'of {instance.gpu.count} '}{instance.gpu.model}, copies to and from it included"


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


def _listed(cpus: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(cpus)))
