"""py-spy's chrometrace as slices beside our own: begin and end events of every frame, counted from when py-spy started."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from ...core.errors import RunFailed
from .chrome import Slice, Track


class _FrameArgs(msgspec.Struct, frozen=True):
    filename: str = ""
    line: int = 0


class _Frame(msgspec.Struct, frozen=True):
    name: str
    ph: Literal["B", "E"]
    pid: int
    tid: int
    ts: int
    args: _FrameArgs = _FrameArgs()


def stack_slices(path: Path, begun_ns: int, group: int, process: str) -> tuple[list[Slice], list[Track]]:
    """Frames as slices on the monotonic clock, one track per thread in `group`; raises RunFailed for another kind of file.

    py-spy's clock starts a few milliseconds after `begun_ns`, and its frames are as exact as its samples: 10 ms at 100 per second.
    """
    try:
        frames = msgspec.json.decode(path.read_bytes(), type=tuple[_Frame, ...])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RunFailed("profile trace", f"py-spy's trace cannot be read: {error}") from None
    numbers: dict[tuple[int, int], int] = {}
    around: dict[tuple[int, int], list[_Frame]] = {}
    slices: list[Slice] = []

    def close(frame: _Frame, ts: int) -> None:
        args: dict[str, str | int | float] = {"file": frame.args.filename, "line": frame.args.line} if frame.args.filename else {}
        slices.append(
            Slice(
                name=frame.name or "?",
                cat="stack",
                start_ns=begun_ns + frame.ts * 1000,
                end_ns=begun_ns + max(frame.ts, ts) * 1000,
                pid=group,
                tid=numbers[frame.pid, frame.tid],
                args=args,
            )
        )

    for frame in frames:
        thread = (frame.pid, frame.tid)
        numbers.setdefault(thread, len(numbers) + 1)
        stack = around.setdefault(thread, [])
        if frame.ph == "B":
            stack.append(frame)
        elif stack:
            close(stack.pop(), frame.ts)
    last = frames[-1].ts if frames else 0
    for stack in around.values():
        while stack:
            close(stack.pop(), last)
    # A frame is closed after those inside it: outer ones come first again, so that equal times nest the right way round.
    slices.reverse()
    tracks = [Track(pid=group, tid=n, process=process, thread=f"thread {tid:#x}") for (_, tid), n in numbers.items()]
    return slices, tracks
