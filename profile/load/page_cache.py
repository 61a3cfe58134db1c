"""Whether files lie in the kernel's page cache, and how to put them out of it without being root."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...core.errors import InputError

# A page or two that something else keeps do no harm.
_MOST_LEFT = 0.02


def files_of(model: Path) -> tuple[Path, ...]:
    """The files a model is loaded from: itself, or everything in its folder."""
    return (model,) if model.is_file() else tuple(sorted(path for path in model.rglob("*") if path.is_file()))


def cached_share(files: Sequence[Path]) -> float | None:
    """Share of the files' pages that are in memory (mincore(2)); None where the kernel does not tell."""
    found = [_resident(path) for path in files]
    known = [pair for pair in found if pair is not None]
    total = sum(pages for _, pages in known)
    return sum(resident for resident, _ in known) / total if total and len(known) == len(found) else None


def drop(files: Sequence[Path]) -> None:
    """Put the files out of the page cache (posix_fadvise(2), DONTNEED); raises InputError when they stay or nobody can tell."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages not yet written cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    left = cached_share(files)
    if left is None or left > _MOST_LEFT:
        found = "a kernel that does not tell" if left is None else f"{left:.0%} of them still in memory"
        fix = "copy the store to a disk you own, and end processes that have the model open; a file system in memory has no other place"
        raise InputError.mismatch("--cold-cache", expected="the model's files out of the page cache", found=found, fix=fix)


def _resident(path: Path) -> tuple[int, int] | None:
    """Pages of a file in memory and in all."""
    size = path.stat().st_size
    if size == 0:
        return 0, 0
    pages = -(-size // mmap.PAGESIZE)
    vector = (ctypes.c_ubyte * pages)()
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
        view = np.frombuffer(mapped, dtype=np.uint8)
        failed = ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(size), vector)
        del view
    return None if failed else (sum(flag & 1 for flag in vector), pages)
