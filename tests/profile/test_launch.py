from __future__ import annotations

import time
from pathlib import Path

from liftgate.profile.launch import WorkerHandle


def test_every_library_that_has_a_thread_pool_is_told_its_size_before_it_is_loaded() -> None:
    worker = WorkerHandle("v1.0", (0,), 3)
    try:
        file, until = Path(f"/proc/{worker.pid}/environ"), time.monotonic() + 10
        while not (told := file.read_bytes()) and time.monotonic() < until:  # empty while the kernel still sets the program up
            time.sleep(0.01)
        words = told.decode().split("\0")
    finally:
        worker.kill()
    pools = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    assert {f"{pool}_NUM_THREADS=3" for pool in pools} <= set(words)
