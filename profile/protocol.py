"""What the measuring parent and its worker say to each other: one JSON object per line."""

from __future__ import annotations

import msgspec

from ..core.artifact import ModelRef
from ..core.session_defaults import Device


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Load `model` (a path) and answer the first request of `requests`, then prepare the rest."""

    model: str
    store: str
    threads: int
    requests: str
    device: Device = "cpu"


class Block(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """Answer the requests at these positions one after another and time each; the first `warmup` are repeated untimed before.

    With a `batch`, that many consecutive requests go into one call (layout `rows`), calls are timed, and `warmup` counts calls.
    """

    indices: tuple[int, ...]
    warmup: int
    batch: int = 1


class Schedule(msgspec.Struct, frozen=True, kw_only=True, tag="schedule"):
    """Answer the requests at these positions when they are due: `arrivals_ns` (ascending) after the start.

    They wait in one queue for `servers` threads; the first `warmup` are repeated untimed before. Requests that nobody has begun
    `give_up_ns` after the start stay unanswered; None never gives up. A lone server sleeps until a request is due, or watches the clock for
    the last tenth of a millisecond (`watch`).
    """

    indices: tuple[int, ...]
    arrivals_ns: tuple[int, ...]
    warmup: int
    servers: int = 1
    give_up_ns: int | None = None
    watch: bool = True


class Loadgen(msgspec.Struct, frozen=True, kw_only=True, tag="loadgen"):
    """Have MLPerf LoadGen ask each of these requests once, in its own order; only the worker of `mlperf/` can.

    Without a rate they are asked one after another (SingleStream), with one they arrive at random (Server). LoadGen judges quantile
    `percentile` by `target_ns` and leaves its logs in `folder`; the first `warmup` are repeated untimed before.
    """

    indices: tuple[int, ...]
    rate_per_s: float | None
    target_ns: int
    percentile: float
    seed: int
    warmup: int
    folder: str


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Say goodbye and end."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded: how long importing its runtime, loading and the first answer took."""

    model: ModelRef
    import_ns: int
    load_ns: int
    first_request_ns: int


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """How long the threads of the process waited for a CPU during what they answer, and how long they had one.

    None where the kernel does not tell.
    """

    waited_ns: int | None
    ran_ns: int | None

    @property
    def wait(self) -> tuple[int, int] | None:
        """Nanoseconds waited and run; None where the kernel does not tell."""
        return None if self.waited_ns is None or self.ran_ns is None else (self.waited_ns, self.ran_ns)


class BlockDone(Scheduled, frozen=True, kw_only=True, tag="done"):
    """Service times in the order of the block's indices: little-endian int64 nanoseconds."""

    samples: bytes


class ScheduleDone(Scheduled, frozen=True, kw_only=True, tag="schedule_done"):
    """Little-endian int64 nanoseconds per answered request, in order of arrival; the requests after them were given up.

    `latency` is done - due, `service` done - begun, `lag` begun - max(due, server free).
    """

    latency: bytes
    service: bytes
    lag: bytes


class LoadgenDone(Scheduled, frozen=True, kw_only=True, tag="loadgen_done"):
    """Little-endian int64 per request, in the order in which LoadGen asked: `order` says which of the command's indices each was.

    In nanoseconds: `due` from the first request's scheduled time, `issue` from due until LoadGen called back, `latency` from due until it
    was told, `service` what our clock saw of the model in between.
    """

    order: bytes
    due: bytes
    issue: bytes
    latency: bytes
    service: bytes


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """Last words: the highest resident size without the prepared requests, and how much of the process was in swap.

    None where the kernel does not tell.
    """

    memory_bytes: int | None
    swapped_bytes: int | None


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """What the user gave cannot be measured; the words of the error."""

    where: str
    problem: str
    fix: str


Command = Open | Block | Schedule | Loadgen | Stop
Answer = Ready | BlockDone | ScheduleDone | LoadgenDone | Ended | Refused
