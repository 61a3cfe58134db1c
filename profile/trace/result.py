"""What a trace found, as tables; none of it is an input of a gate."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ...core.machine import Machine
from ...core.requests import RequestsRef


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node, or all nodes of one operator: its own time per request in the typical requests, `share` of theirs, and in the slowest."""

    name: str
    op: str
    typical_us: Estimate
    tail_us: float
    share: float


class Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`infer_us` is the mean over the requests between the quartiles, `tail_us` that of the slowest 1 % (`tail_requests` of them).

    Estimates count blocks of neighbouring requests. `outside` is what no node accounts for. Times of nodes are cut to `resolution_us`.
    """

    requests: int
    infer_us: Estimate
    tail_us: float
    tail_requests: int
    nodes: tuple[Part, ...]
    operators: tuple[Part, ...]
    outside: Part
    resolution_us: float


class Traced(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model traced; `trace` is the file for a viewer."""

    schema_version: Literal[1] = 1
    kind: Literal["traced"] = "traced"
    model: ModelRef
    requests: RequestsRef
    machine: Machine
    tools: dict[str, str]
    threads: int
    seed: int
    trace: str
    tables: Tables
    notes: tuple[str, ...]


class SpanPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of span of a served process, in ms: quartiles over the sampled requests, mean over the slowest that were kept."""

    name: str
    quartiles_ms: tuple[float, float, float] | None
    slow_ms: float | None


class TracedService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A served process traced; `seen` requests since it started, of which `sampled` and `slow` ones are in the file."""

    schema_version: Literal[1] = 1
    kind: Literal["traced_service"] = "traced_service"
    pid: int
    machine: Machine
    trace: str
    seen: int
    sampled: int
    slow: int
    parts: tuple[SpanPart, ...]
    notes: tuple[str, ...]
