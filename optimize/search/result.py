"""What a search found: every trial with its numbers, the front, and the model it recommends with its recipe."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ...core.machine import Machine
from ...core.requests import RequestsRef
from ...core.session_defaults import Runtime
from ...core.verdict import Outcome, Verdict
from ...quality.result import QualityChange
from ...recipes.recipe import Recipe
from ...recipes.steps import Step

State = Literal["holds", "breaks a floor", "slower", "failed"]


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sequence of steps on one runtime.

    `latency` is its time per request over the parent's (timed beside the parent after its exact steps, and multiplied), `us` microseconds
    per request, `overall` the first quality metric over the base's for everyone, and `margin` how far the worst floor was held (negative:
    broken) with `worst` its name; all None where the trial ended before. `screened` says that quality was only looked at on part of the
    requests. `refusals` are steps that were left out, with reasons.
    """

    number: int
    steps: tuple[Step, ...]
    runtime: Runtime
    state: State
    reason: str = ""
    latency: Estimate | None = None
    us: float | None = None
    overall: Estimate | None = None
    margin: float | None = None
    worst: str = ""
    outcome: Outcome | None = None
    quality: tuple[QualityChange, ...] = ()
    screened: bool = False
    size_bytes: int = 0
    refusals: tuple[str, ...] = ()
    seconds: float = 0.0
    digest: str = ""

    @property
    def holds(self) -> bool:
        return self.state == "holds"


class Finalist(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trial as it went through the gate: its latency over the parent's once more, beside the other finalists, and the verdict on requests
    that had no part in the search."""

    trial: int
    latency: Estimate
    us: float
    quality: tuple[QualityChange, ...]
    verdict: Verdict


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a search found. `front` lists the trials that no other is both faster and better than; `verdict` is the gate's word on the
    recommended model, None where there is none to recommend, and `closest` is then the trial that came nearest to holding every floor."""

    schema_version: Literal[1] = 1
    kind: Literal["search"] = "search"
    parent: ModelRef
    base: ModelRef
    requests: RequestsRef
    gate_requests: RequestsRef
    budget: str
    metric: str
    trials: tuple[Trial, ...]
    front: tuple[int, ...]
    finalists: tuple[Finalist, ...]
    winner: ModelRef | None
    recipe: Recipe | None
    verdict: Verdict | None
    closest: int | None
    combinations: int
    machine: Machine
    tools: dict[str, str]
    threads: int
    seed: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """PASS when a model is recommended; FAIL when none holds the floors; else the gate's verdict on the best."""
        return Outcome.FAIL if self.verdict is None else self.verdict.outcome


def front(trials: tuple[Trial, ...]) -> tuple[int, ...]:
    """Numbers of the trials that hold every floor and that no other such trial beats in both latency and overall quality, fastest first.

    Of trials with equal numbers the first stays.
    """
    able = sorted((t for t in trials if t.holds), key=lambda t: (latency_of(t), -_overall(t), t.number))
    found = list[int]()
    best = -float("inf")
    for trial in able:
        if _overall(trial) > best:
            found.append(trial.number)
            best = _overall(trial)
    return tuple(found)


def latency_of(trial: Trial) -> float:
    """Its time over the parent's; infinite where it is not known."""
    return float("inf") if trial.latency is None or trial.latency.value is None else trial.latency.value


def _overall(trial: Trial) -> float:
    return -float("inf") if trial.overall is None or trial.overall.value is None else trial.overall.value
