"""Why one model is slower than another: what `profile explain` found.

A type of its own, in a file of its own (`explanation.json`): its times come from under a profiler, and nothing that judges reads them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ...core.machine import Machine
from ...core.requests import RequestsRef
from ..result import Label

Direction = Literal["slower", "faster", "no difference"]
Status = Literal["both", "new", "removed"]


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node, all nodes of an operator, or what is outside nodes: µs per request in both models (None: not in that one).

    `share` is of the whole difference, None where there is none to share. `stands_out` says that it surely has its part in that: over
    rounds, corrected for how many are looked at, over launches, and by 2 % of the control's time at least. `matched` says how a
    node was found in the other model. `nodes` counts them in control and treatment.
    """

    name: str
    op: str
    status: Status
    matched: Literal["", "name", "shape", "order"] = ""
    nodes: tuple[int, int]
    control_us: float | None
    treatment_us: float | None
    difference_us: Estimate
    share: Estimate | None
    stands_out: bool


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bar of the waterfall from the control's time to the treatment's, in µs."""

    name: str
    start_us: float
    end_us: float


class Tail(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The slowest 1 % of each model's requests (`requests` of them): mean µs, and what the difference is made of, by operator."""

    requests: int
    control_us: Estimate
    treatment_us: Estimate
    difference_us: Estimate
    parts: tuple[TailPart, ...]
    waterfall: tuple[Step, ...]


class TailPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One operator's part in the difference of the slowest requests."""

    name: str
    difference_us: Estimate


class Unprofiled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same requests in the same rounds without a profiler, to see what profiling adds."""

    control_us: Estimate
    treatment_us: Estimate
    difference_us: Estimate


class Explanation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two models under the profiler, in interleaved rounds of the same requests.

    Times are means of the pairs of requests whose difference is among the middle 80 % of their launch, so that parts add up to the whole;
    intervals come from resampled launches and rounds (`n`). `nodes` and `operators` are those with the largest increase first; `outside`
    is what no node accounts for. `label` and `standing` say how the instance was there, `invalid` why neither differences nor times can
    be trusted, `unsteady` why only differences, which share what happened to the machine.
    """

    control: ModelRef
    treatment: ModelRef
    instance: str
    label: Label
    standing: str
    threads: int
    requests: RequestsRef
    machine: Machine
    tools: dict[str, str]
    seed: int
    started_at: str
    launches: int
    rounds: int
    pairs: int
    resolution_us: tuple[float, float]
    direction: Direction
    conclusion: str
    control_us: Estimate
    treatment_us: Estimate
    difference_us: Estimate
    unprofiled: Unprofiled
    nodes: tuple[Change, ...]
    operators: tuple[Change, ...]
    outside: Change
    waterfall: tuple[Step, ...]
    tail: Tail
    invalid: tuple[str, ...]
    unsteady: tuple[str, ...]
    notes: tuple[str, ...]


class Explanations(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`explanation.json`: one explanation per treatment."""

    schema_version: Literal[1] = 1
    kind: Literal["explanations"] = "explanations"
    explanations: tuple[Explanation, ...]
