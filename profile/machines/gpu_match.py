"""Whether a GPU here is the one an instance has."""

from __future__ import annotations

import re

from ...core.errors import InputError
from ...core.gpu import GpuFacts, GpuReading
from .instance import Gpu, Instance

# Drivers keep a part of the memory and count in binary: 16 GB of a T4 are 15 GiB, 24 GB of an A10G are 22.5 GiB, 80 GB of an H100 are 79.6.
_LEAST_MEMORY, _MOST_MEMORY = 0.85, 1.02


def find_gpu(instance: Instance, reading: GpuReading) -> GpuFacts:
    """The first GPU here that `instance` also has; raises InputError saying what was found instead."""
    wanted = instance.gpu
    if wanted is None:
        raise AssertionError("only an instance with a GPU needs one")
    for gpu in reading.gpus:
        if _is_model(gpu, wanted) and _fits(gpu, wanted) and not gpu.divided:
            return gpu
    fix = f"measure on {instance.name} itself, or on any machine with {wanted.model} GPUs and NVIDIA's driver"
    if not reading.gpus:
        fix = f"{fix}; a profile without a GPU runs here"
    raise InputError(
        f"instance {instance.name}", f"needs the GPU {wanted.model} ({wanted.memory_gib:g} GB), found {_found(reading)}", fix=fix
    )


def _is_model(gpu: GpuFacts, wanted: Gpu) -> bool:
    """`Tesla T4` and `NVIDIA T4` are T4; `NVIDIA L40S` is not L4."""
    return wanted.model.lower() in re.split(r"[^a-z0-9]+", gpu.name.lower())


def _fits(gpu: GpuFacts, wanted: Gpu) -> bool:
    return _LEAST_MEMORY <= gpu.memory_gib / wanted.memory_gib <= _MOST_MEMORY


def _found(reading: GpuReading) -> str:
    if not reading.gpus:
        return reading.problem
    divided = " divided by MIG"
    return ", ".join(f"{gpu.name} ({gpu.memory_gib:g} GiB{divided if gpu.divided else ''})" for gpu in reading.gpus)
