"""The history of a gate: one JSON line per run, one file per machine fingerprint; told to people, never used to decide.

A line is appended whole under a lock and flushed to the disk, so jobs may write at once and be killed. A line that cannot be read (half of
one after a power cut, one of a later version) is told and kept.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..core.artifact import ModelRef
from ..core.errors import InputError
from ..core.estimate import Estimate
from ..core.machine import Machine
from ..core.verdict import Outcome, Verdict
from .result import Comparison, Label

SUFFIX = ".jsonl"


class TrendModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of a run by name and digest."""

    name: str
    digest: str

    @classmethod
    def of(cls, model: ModelRef) -> TrendModel:
        return cls(name=model.name, digest=model.digest)


class TrendLatency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model on one instance (`local`, or `local@200/s`): quantiles in ms, and for a treatment the ratio to the control of the same run.

    `disturbed` says that absolute times are not to be trusted.
    """

    instance: str
    label: Label
    threads: int | None = None
    model: str
    quantiles_ms: dict[str, Estimate]
    ratios: dict[str, Estimate]
    disturbed: bool


class TrendLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One run of a gate."""

    version: Literal[1] = 1
    started_at: str
    machine: Machine
    control: TrendModel
    treatment: TrendModel
    outcome: Outcome
    gates: Annotated[dict[str, Outcome], msgspec.Meta(min_length=1)]
    latency: tuple[TrendLatency, ...]
    tools: dict[str, str]
    seed: int
    samples_sha256: str | None = None

    @property
    def fingerprint(self) -> str:
        return self.machine.fingerprint


class Unreadable(msgspec.Struct, frozen=True, kw_only=True):
    """A line that stays in its file although nobody can read it."""

    file: str
    line: int
    why: str


class Trend(msgspec.Struct, frozen=True, kw_only=True):
    """Lines in the order of their runs, and what could not be read."""

    schema_version: Literal[1] = 1
    kind: Literal["trend"] = "trend"
    lines: tuple[TrendLine, ...]
    unreadable: tuple[Unreadable, ...]

    def machines(self) -> dict[str, tuple[TrendLine, ...]]:
        """Lines per fingerprint: numbers of two machines never stand in one row."""
        return {
            f: tuple(line for line in self.lines if line.fingerprint == f) for f in dict.fromkeys(line.fingerprint for line in self.lines)
        }


def trend_line(result: Comparison, verdict: Verdict) -> TrendLine:
    """What is worth keeping of a gate's first treatment."""
    treatment = result.candidates[0].model
    latency = [
        TrendLatency(
            instance=instance.name,
            label=instance.label,
            threads=instance.threads,
            model=model.model.name,
            quantiles_ms=model.quantiles_ms,
            ratios={c.quantile: c.ratio for c in instance.changes.get(model.model.name, ())},
            disturbed=bool(instance.invalid or instance.unsteady),
        )
        for instance in result.instances
        for model in instance.models
    ]
    return TrendLine(
        started_at=result.started_at,
        machine=result.machine,
        control=TrendModel.of(result.control),
        treatment=TrendModel.of(treatment),
        outcome=verdict.outcome,
        gates={f.gate: f.outcome for f in verdict.findings},
        latency=tuple(latency),
        tools=result.tools,
        seed=result.seed,
        samples_sha256=result.samples_sha256,
    )


def trend_file(place: Path, machine: Machine) -> Path:
    """`place` itself when it is named like a file of lines, else this machine's file in the folder `place`; raises InputError."""
    if place.suffix == SUFFIX and not place.is_dir():
        return place
    if place.is_file():
        raise InputError.mismatch(
            str(place), expected=f"a folder or a file that ends in {SUFFIX}", found="another file", fix="choose another place"
        )
    # The fingerprint may come from a result that somebody else wrote: it names a file, so it must be nothing else.
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", machine.fingerprint):
        raise InputError.mismatch("machine fingerprint", expected="letters and digits", found=repr(machine.fingerprint))
    return place / f"{machine.fingerprint}{SUFFIX}"


def append(place: Path, line: TrendLine) -> Path:
    """Append one line to the file of its machine and return it; raises InputError when that cannot be written.

    A file that ends amid a line, as a killed writer may leave it, gets a line end first: the new line stays readable.
    """
    file = trend_file(place, line.machine)
    body = msgspec.json.encode(line) + b"\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                body = b"\n" + body
            _write_all(handle, body)
            os.fsync(handle)
        finally:
            os.close(handle)  # and with it the lock
    except OSError as error:
        raise InputError(str(file), f"cannot be written ({error.strerror or error})", fix="choose another place with --trend") from None
    return file


def _write_all(handle: int, body: bytes) -> None:
    """One write as a rule; the rest of it where a disk is nearly full."""
    while body:
        body = body[os.write(handle, body) :]


def read_trend(place: Path) -> Trend:
    """Every run in a file, or in all files of a folder; raises InputError when there is none that can be read."""
    files = [place] if place.is_file() else sorted(place.glob(f"*{SUFFIX}"))
    if not files:
        raise InputError.mismatch(
            str(place), expected=f"a trend file or a folder with *{SUFFIX}", found="none", fix="write one: profile gate … --trend DIR"
        )
    lines: list[TrendLine] = []
    unreadable: list[Unreadable] = []
    for file in files:
        for number, raw in enumerate(_rows(file), start=1):
            try:
                if raw.strip():
                    lines.append(msgspec.json.decode(raw, type=TrendLine))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                unreadable.append(Unreadable(file=str(file), line=number, why=str(error)))
    if not lines:
        first = unreadable[0] if unreadable else None
        found = "no line" if first is None else f"nothing that can be read ({first.file}: line {first.line}: {first.why})"
        fix = "name the folder that profile gate … --trend writes to; lines of a later version need that version"
        raise InputError.mismatch(str(place), expected="runs of a gate", found=found, fix=fix)
    return Trend(lines=tuple(sorted(lines, key=lambda line: line.started_at)), unreadable=tuple(unreadable))


def _rows(file: Path) -> Sequence[bytes]:
    try:
        return file.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(str(file), f"cannot be read ({error.strerror or error})", fix="check who may read it") from None
