"""Which machine and which tools made a number."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

import msgspec

from .gpu import GpuFacts, read_gpus

_TOOLS = ("liftgate", "torch", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "optimum", "neural-compressor", "numpy")
# The features that decide which kernels run, as Linux names them; the full list is long and mostly noise.
FEATURES: dict[str, tuple[str, ...]] = {
    "x86_64": ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    "aarch64": ("asimddp", "i8mm", "sve", "bf16"),
}


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine behind a measurement; `fingerprint` is equal where results may be compared over time.

    `cores` are hardware threads, as the kernel counts CPUs; `gpus` are those that a CUDA program may use.
    """

    cpu: str
    cores: int
    threads_per_core: int
    memory_gib: float
    features: tuple[str, ...]
    system: str
    fingerprint: str
    gpus: tuple[GpuFacts, ...] = ()


def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _threads_per_core() -> int:
    try:
        siblings = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return 1
    count = 0
    for part in siblings.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


@cache
def this_machine() -> Machine:
    """Read this machine's CPU, memory, kernel and GPUs."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    cpu = info.get("model name") or platform.processor() or platform.machine()
    cores = os.cpu_count() or 1
    threads_per_core = _threads_per_core()
    memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    features = tuple(f for telling in FEATURES.values() for f in telling if f in flags)
    gpus = read_gpus().gpus
    graphics = [f"{gpu.name} {gpu.driver}" for gpu in gpus]
    identity = "|".join([cpu, str(cores), str(threads_per_core), str(round(memory_gib)), *features, *graphics])
    return Machine(
        cpu=cpu,
        cores=cores,
        threads_per_core=threads_per_core,
        memory_gib=memory_gib,
        features=features,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        fingerprint=hashlib.sha256(identity.encode()).hexdigest()[:12],
        gpus=gpus,
    )


@cache
def tool_versions() -> dict[str, str]:
    """Versions of the packages that decide what a model computes and how fast."""
    found = {"python": platform.python_version()}
    for name in _TOOLS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
