from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.serve.journal import Journal


async def write(path: Path, *lines: bytes) -> None:
    journal = Journal(path, asyncio.get_running_loop())
    await asyncio.gather(*(journal.append(line) for line in lines))
    journal.close()


def test_lines_written_together_are_all_there_in_order(tmp_path: Path) -> None:
    lines = [b"%d\n" % i for i in range(500)]
    asyncio.run(write(tmp_path / "log.jsonl", *lines))
    assert (tmp_path / "log.jsonl").read_bytes() == b"".join(lines)


def test_a_torn_last_line_is_cut_off_when_the_log_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"first\n" + b"x" * 200_000)
    asyncio.run(write(path, b"second\n"))
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_log_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"x" * 70_000)
    asyncio.run(write(path))
    assert path.read_bytes() == b""


def test_two_routers_cannot_share_a_log(tmp_path: Path) -> None:
    async def both() -> None:
        loop = asyncio.get_running_loop()
        first = Journal(tmp_path / "log.jsonl", loop)
        try:
            with pytest.raises(InputError, match="in use by another router"):
                Journal(tmp_path / "log.jsonl", loop)
        finally:
            first.close()

    asyncio.run(both())


def test_a_failed_write_is_told_to_its_callers_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    real = os.write

    def full_disk(fd: int, body: bytes) -> int:
        if bytes(body).startswith(b"{"):
            return real(fd, body[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def scenario() -> None:
        journal = Journal(path, asyncio.get_running_loop())
        await journal.append(b"good\n")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full_disk)
            with pytest.raises(RunFailed, match="No space left"):
                await journal.append(b"{half a line}\n")
        await journal.append(b"good again\n")
        journal.close()

    asyncio.run(scenario())
    assert path.read_bytes() == b"good\ngood again\n"


def test_a_half_line_that_cannot_be_cut_off_breaks_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    real = os.write

    def full_disk(fd: int, body: bytes) -> int:
        if bytes(body).startswith(b"{"):
            return real(fd, body[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def failing(_fd: int, _size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def scenario() -> None:
        journal = Journal(path, asyncio.get_running_loop())
        await journal.append(b"good\n")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full_disk)
            patch.setattr(os, "ftruncate", failing)
            with pytest.raises(RunFailed, match="No space left"):
                await journal.append(b"{half a line}\n")
        with pytest.raises(RunFailed, match=r"takes nothing more since an earlier write could not be cut off \(Input/output error\)"):
            await journal.append(b"lost behind half a line\n")
        journal.close()

    asyncio.run(scenario())
    assert path.read_bytes() == b"good\n{ha"
    asyncio.run(write(path, b"good again\n"))
    assert path.read_bytes() == b"good\ngood again\n"


def test_an_unexpected_failure_of_the_writer_is_told_to_its_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_fd: int) -> None:
        raise ValueError("unexpected")

    async def scenario() -> None:
        journal = Journal(tmp_path / "log.jsonl", asyncio.get_running_loop())
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", failing)
            with pytest.raises(RunFailed, match="unexpected"):
                await asyncio.wait_for(journal.append(b"line\n"), 10)
        with pytest.raises(RunFailed, match="takes nothing more"):
            await asyncio.wait_for(journal.append(b"line\n"), 10)
        journal.close()

    asyncio.run(scenario())


def test_a_closed_log_takes_nothing_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(tmp_path / "log.jsonl", asyncio.get_running_loop())
        journal.close()
        with pytest.raises(RunFailed, match="is closed"):
            await journal.append(b"late\n")

    asyncio.run(scenario())
