"""Gates on equal models and on one that is truly slower, beside a noisy neighbour or alone: how often each answer is right."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from ...core.artifact import ModelArtifact
from ...core.requests import Requests
from ...core.store import Store
from ...core.verdict import Outcome
from ...profile.budget import Budget, Conditions, parse_budget
from ...profile.inputs import load_placements, load_subjects
from ...profile.judge import Evidence, clear, verdict
from ...profile.launch import Subject
from ...profile.measure import Run, measure
from ...profile.result import QUANTILES
from ...profile.sequential import direction, paired_rounds, planned_looks
from .neighbour import KINDS, Kind, neighbour
from .slowed_worker import SHARE

LOCAL = Conditions(instance="local")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared how often: gates by quantile, the treatment's true slow-down, and who else is on the machine."""

    name: str
    gates: dict[str, str]
    slowed_by: float
    noisy: bool
    seconds: float
    launches: int = 8

    @property
    def budget(self) -> Budget:
        rows = (f'[[gate]]\nmetric = "latency_{q}"\nmax_regress = "{margin}"\n' for q, margin in self.gates.items())
        return parse_budget("".join(rows), source="bench")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison's outcome and direction per quantile, how long it measured, and what disturbed it."""

    case: str
    outcomes: dict[str, Outcome]
    directions: dict[str, str]
    ratios: dict[str, float | None]
    measured_s: float
    neighbour: str
    disturbed: tuple[str, ...]


CASES = (
    Case(name="equal, neighbour", gates={"p50": "5%", "p95": "5%", "p99": "5%"}, slowed_by=0.0, noisy=True, seconds=3.0, launches=3),
    Case(name="equal, p50 only", gates={"p50": "5%"}, slowed_by=0.0, noisy=False, seconds=20.0),
    Case(name="equal, p50 only, neighbour", gates={"p50": "5%"}, slowed_by=0.0, noisy=True, seconds=20.0),
    Case(name="5 % slower, p50", gates={"p50": "2%"}, slowed_by=0.05, noisy=False, seconds=20.0),
    Case(name="5 % slower, p50, neighbour", gates={"p50": "2%"}, slowed_by=0.05, noisy=True, seconds=20.0),
    Case(name="5 % slower, p95", gates={"p95": "2%"}, slowed_by=0.05, noisy=False, seconds=60.0),
    Case(name="5 % slower, p95, neighbour", gates={"p95": "2%"}, slowed_by=0.05, noisy=True, seconds=60.0),
)


def compare_once(case: Case, model: ModelArtifact, requests: Requests, store: Store, seed: int) -> Answer:
    """One comparison of `model` with itself, the second one slowed; every seed has the next kind of neighbour."""
    placement = load_placements(["local"], 1)[0]
    control, twin = load_subjects([model, model], store)
    treatment = msgspec.structs.replace(twin, worker="liftgate.bench.measure.slowed_worker") if case.slowed_by else twin
    kind: Kind | None = KINDS[seed % len(KINDS)] if case.noisy else None
    with _slowed(case.slowed_by), neighbour(kind, measured=placement.cpus) if kind else nullcontext():
        run = measure(
            [control, treatment],
            requests,
            placement,
            seconds=case.seconds,
            launches=case.launches,
            seed=seed,
            store=store,
            enough=lambda so_far: clear(case.budget, [_evidence((control, treatment), so_far)], LOCAL),
        )
    found = verdict(case.budget, _evidence((control, treatment), run))
    paired = {q: paired_rounds(run.samples.of(0), run.samples.of(1), p) for q, p in QUANTILES.items()}
    return Answer(
        case=case.name,
        outcomes=dict(zip(case.gates, (f.outcome for f in found.findings), strict=True)) if found else {},
        directions={q: direction(p, looks=len(planned_looks(run.planned))) for q, p in paired.items()},
        ratios={q: p.estimate().value for q, p in paired.items()},
        measured_s=run.measured_s,
        neighbour=kind or "",
        disturbed=run.invalid + run.unsteady,
    )


def _evidence(subjects: Sequence[Subject], run: Run) -> Evidence:
    return Evidence(control=subjects[0].ref, treatment=subjects[1].ref, model=1, runs={LOCAL: run}, quality=())


@contextmanager
def _slowed(share: float) -> Iterator[None]:
    """Workers inherit by how much a slowed session is slower."""
    os.environ[SHARE] = str(share)
    try:
        yield
    finally:
        del os.environ[SHARE]


def run(case: Case, repeats: int, model: ModelArtifact, requests: Requests, *, store: Store, log: Path) -> list[str]:
    """Rows of a Markdown table; every answer is added to `log` as it comes, one JSON object per line."""
    answers = []
    with log.open("ab") as file:
        for seed in range(repeats):
            answer = compare_once(case, model, requests, store, seed)
            answers.append(answer)
            file.write(msgspec.json.encode(answer) + b"\n")
            file.flush()
            print(f"{case.name}: {seed + 1} of {repeats}", dict(answer.outcomes), f"{answer.measured_s:.1f} s", file=sys.stderr, flush=True)
    return rows(case, answers)


HEADER = (
    "| case | gate | comparisons | PASS | FAIL | UNDECIDED | INVALID | called slower | called faster | measured s, median and longest |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def rows(case: Case, answers: Sequence[Answer]) -> list[str]:
    """One row per gate."""
    spent = sorted(answer.measured_s for answer in answers)
    found = []
    for quantile, margin in case.gates.items():
        outcomes = Counter(answer.outcomes[quantile] for answer in answers)
        directions = Counter(answer.directions[quantile] for answer in answers)
        counts = " | ".join(str(outcomes[o]) for o in (Outcome.PASS, Outcome.FAIL, Outcome.UNDECIDED, Outcome.INVALID))
        told = f"{directions['slower']} | {directions['faster']}"
        times = f"{spent[len(spent) // 2]:.1f}, {spent[-1]:.1f}"
        found.append(f"| {case.name} | {quantile} {margin} | {len(answers)} | {counts} | {told} | {times} |")
    return found
