"""What the benchmark and a variant's process say to one another."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .variants import Job, Runner


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker runs: the model at `path`, on `core` alone, with the requests of each of `timed` (by candidates) loaded beforehand."""

    job: Job
    runner: Runner
    path: Path
    core: int | None = None
    timed: dict[int, Path] = {}


class Time(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Time `count` calls of `candidates` each from request `first` on, after `warm` calls that are not counted."""

    candidates: int
    first: int
    count: int
    warm: int


class Score(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Write the scores of the requests in a file (those at the positions `only`) to a .npy file."""

    requests: Path
    out: Path
    only: list[int] | None = None


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """End the process."""


Command = Time | Score | Stop


class Loaded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The model and the requests are there, and each has run."""


class Timed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Nanoseconds of each call."""

    ns: list[int]


class Scored(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The scores are written."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What went wrong, in the runtime's own words."""

    reason: str


Answer = Loaded | Timed | Scored | Failed
