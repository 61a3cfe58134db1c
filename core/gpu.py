"""Which GPUs this machine has, as the driver's own tool tells."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache

import msgspec

TOOL = "nvidia-smi"
_FIELDS = ("uuid", "name", "memory.total", "driver_version", "mig.mode.current")
# A driver that wakes up sleeping GPUs takes seconds to answer.
_PATIENCE_S = 20.0


class GpuFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One GPU; `memory_gib` is what the driver gives, a little less than its maker names, and `divided` says that MIG cuts it in parts."""

    name: str
    memory_gib: float
    driver: str
    uuid: str
    divided: bool = False


class GpuReading(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs that CUDA programs started here may use, in the driver's order, and why there are none."""

    gpus: tuple[GpuFacts, ...] = ()
    problem: str = ""


@cache
def read_gpus() -> GpuReading:
    """Ask the driver once per process; a machine without its tool is not asked at all."""
    tool = shutil.which(TOOL)
    if tool is None:
        return GpuReading(problem=f"no GPU ({TOOL} is not installed)")
    command = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return GpuReading(problem=f"no answer from {TOOL} within {_PATIENCE_S:g} s")
    except OSError as error:
        return GpuReading(problem=f"no answer from {TOOL} ({error.strerror})")
    if done.returncode != 0:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return GpuReading(problem=f"an error of {TOOL}: {said[0] if said else f'exit code {done.returncode}'}")
    return visible(parse_gpus(done.stdout), os.environ)


def parse_gpus(text: str) -> GpuReading:
    """The answer of the driver's tool, one line per GPU; memory comes in MiB."""
    found = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_FIELDS) or not values[2].isdigit():
            return GpuReading(problem=f"an answer of {TOOL} that cannot be read: {line[:120]!r}")
        uuid, name, memory, driver, mig = values
        found.append(GpuFacts(name=name, memory_gib=round(int(memory) / 1024, 1), driver=driver, uuid=uuid, divided=mig == "Enabled"))
    return GpuReading(gpus=tuple(found), problem="" if found else f"no GPU ({TOOL} lists none)")


def visible(reading: GpuReading, environment: Mapping[str, str]) -> GpuReading:
    """What CUDA_VISIBLE_DEVICES leaves: numbers or beginnings of UUIDs, up to the first that names no GPU, as CUDA reads it."""
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None or not reading.gpus:
        return reading
    left: list[GpuFacts] = []
    for word in (word.strip() for word in wanted.split(",")):
        if word.isdigit() and int(word) < len(reading.gpus):
            left.append(reading.gpus[int(word)])
            continue
        named = [gpu for gpu in reading.gpus if word.startswith("GPU-") and gpu.uuid.startswith(word)]
        if len(named) != 1:
            break
        left.append(named[0])
    return GpuReading(gpus=tuple(left), problem="" if left else f"no GPU (CUDA_VISIBLE_DEVICES={wanted!r} hides all {len(reading.gpus)})")
