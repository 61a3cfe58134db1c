from __future__ import annotations

from pathlib import Path

from liftgate.profile.worker import scheduled_ns, status_bytes


def test_sizes_are_read_from_the_kernel_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t  1024 kB\nVmSwap:\t     0 kB\n")
    assert (status_bytes("VmHWM", tmp_path), status_bytes("VmSwap", tmp_path)) == (2**20, 0)


def test_a_size_the_kernel_does_not_tell_is_unknown_and_not_zero(tmp_path: Path) -> None:
    assert status_bytes("VmHWM", tmp_path) is None
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert status_bytes("VmHWM", tmp_path) is None


def test_waits_add_over_threads_and_are_unknown_without_schedstat(tmp_path: Path) -> None:
    for thread, text in (("1", "70 5 3\n"), ("2", "30 2 1\n")):
        (tmp_path / "task" / thread).mkdir(parents=True)
        (tmp_path / "task" / thread / "schedstat").write_text(text)
    assert scheduled_ns(tmp_path) == (100, 7)
    (tmp_path / "task" / "2" / "schedstat").unlink()
    assert scheduled_ns(tmp_path) is None
