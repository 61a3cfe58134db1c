"""What the measuring parent and its worker say to each other: one JSON object per line."""

from __future__ import annotations

import msgspec

from ..core.artifact import ModelRef


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Load `model` (a path) and answer the first request of `requests`, then prepare the rest."""

    model: str
    store: str
    threads: int
    requests: str


class Block(msgspec.Struct, frozen=True, kw_only=True, tag="block"):
    """Answer the requests at these positions one after another and time each; the first `warmup` are repeated untimed before."""

    indices: tuple[int, ...]
    warmup: int


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Say goodbye and end."""


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded: how long that and the first answer took."""

    model: ModelRef
    load_ns: int
    first_request_ns: int


class BlockDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """Service times in the order of the block's indices: little-endian int64 nanoseconds.

    `waited_ns` is how long the threads of the process waited for a CPU during the block, `ran_ns` how long they had one; None where the
    kernel does not tell.
    """

    samples: bytes
    waited_ns: int | None
    ran_ns: int | None


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


Command = Open | Block | Stop
Answer = Ready | BlockDone | Ended | Refused
