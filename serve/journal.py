"""An append-only file whose writes are on disk before anybody is told so."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path
from typing import NamedTuple

from ..core.errors import InputError, RunFailed

_TAIL = 1 << 16


class _Entry(NamedTuple):
    body: bytes
    done: asyncio.Future[None]


class Journal:
    """One JSON-lines file with group commit.

    Callers await `append`; one thread collects whatever is pending, appends it with one write and one fdatasync, and only then wakes
    the callers. A failed write is cut off again and every caller of that group gets RunFailed; when that is impossible too, the
    journal is broken and takes nothing more, since whatever followed half a line would be lost with it. The file is locked, so that two
    routers cannot share it; a line torn by a crash is cut off when the file is opened.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self._loop = loop
        self._pending: list[_Entry] = []
        self._wake = threading.Condition()
        self._closing = False
        self._broken = ""
        self._fd = _open_locked(path)
        self._size = _cut_torn_line(self._fd)
        self._thread = threading.Thread(target=self._work, name=f"journal-{path.name}", daemon=True)
        self._thread.start()

    async def append(self, body: bytes) -> None:
        """Return when `body` (whole lines, each ended by a newline) is on disk; raises RunFailed when it could not be written."""
        entry = _Entry(body, self._loop.create_future())
        with self._wake:
            if self._closing:
                raise RunFailed(str(self.path), "is closed")
            self._pending.append(entry)
            self._wake.notify()
        await entry.done

    def close(self) -> None:
        """Write what is pending, then close the file."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._thread.join()
        os.close(self._fd)

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending or self._closing)
                batch, self._pending = self._pending, []
            if not batch:
                return
            failure = self._try_commit(b"".join(entry.body for entry in batch))
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_settle, batch, failure)

    def _try_commit(self, body: bytes) -> RunFailed | None:
        """Why `body` is not on disk, or None when it is."""
        where = str(self.path)
        if self._broken:
            return RunFailed(where, f"takes nothing more since an earlier write {self._broken}", fix="restart the router")
        try:
            self._commit(body)
        except OSError as error:
            return RunFailed(where, f"cannot be written ({error.strerror})", fix="free the disk or change --logs")
        except Exception as error:  # our own bug: this thread must outlive it, or every caller would wait for ever
            self._broken = f"failed ({error!r})"
            return RunFailed(where, f"cannot be written ({error!r})", fix="restart the router")
        return None

    def _commit(self, body: bytes) -> None:
        view = memoryview(body)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            os.fdatasync(self._fd)
        except OSError:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError as error:
                self._broken = f"could not be cut off ({error.strerror})"
            raise
        self._size += len(body)


def _settle(batch: list[_Entry], failure: RunFailed | None) -> None:
    for entry in batch:
        if entry.done.done():  # its request was cancelled meanwhile
            continue
        if failure is None:
            entry.done.set_result(None)
        else:
            entry.done.set_exception(failure)


def _open_locked(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        created = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if created:
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)  # the file's name must survive a crash as well as its content
            os.close(folder)
    except OSError as error:
        raise InputError(str(path), f"cannot be opened for appending ({error.strerror})", fix="choose another --logs folder") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise InputError(str(path), "is in use by another router", fix="give each router its own --logs folder") from None
    return fd


def _cut_torn_line(fd: int) -> int:
    """Cut whatever follows the last newline and return the size that remains."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _TAIL)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
        os.fdatasync(fd)
    return end
