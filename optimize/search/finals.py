"""From trials to a model: the best few race once more, become artifacts, and go through the budget on requests they were not chosen by."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...core import columns
from ...core.artifact import ModelArtifact, ModelRef
from ...core.errors import LiftgateError
from ...core.requests import Requests
from ...core.session_defaults import SessionDefaults
from ...core.store import Store
from ...core.verdict import Finding, Outcome, Verdict, judge
from ...profile.budget import Budget, Gate
from ...profile.compare import compare
from ...profile.machines.instance import LOCAL
from ...quality.evaluate import Evaluation, evaluate_users, pair
from ...quality.result import QualityChange
from ...recipes.recipe import Recipe
from ...runtime.runtimes import open_model
from ...runtime.session import Session, SessionSettings, open_artifact
from ..apply import apply
from .bench import Bench
from .cache import StepCache
from .floors import Floors
from .result import Finalist, Trial, latency_of
from .space import label

# How many may try the gate: each further one makes a lucky PASS more likely, so each has to pass at a smaller alpha.
MOST_FINALISTS = 3
_RACE_SHARE, _LAUNCHES, _LONGEST_S = 0.1, 3, 30.0


@dataclass(frozen=True, kw_only=True)
class Entrants:
    """Everything the finals need to know about the search."""

    parent: ModelArtifact
    base: ModelArtifact
    bench: Bench
    cache: StepCache
    floors: Floors
    budget: Budget
    settings: SessionSettings
    seed: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate said, and the artifact and recipe that go with it."""

    finalists: tuple[Finalist, ...] = ()
    winner: ModelRef | None = None
    recipe: Recipe | None = None
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()


def finalists(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The fastest that hold every floor on the validation requests; those whose interval holds them come first.

    The parent as it is, which was trial 0, is no find.
    """
    able = [t for t in trials if t.holds and t.latency is not None and (t.steps or t.runtime != "onnxruntime")]
    ordered = sorted(able, key=lambda t: (t.outcome is not Outcome.PASS, latency_of(t), t.number))
    return tuple(ordered[:MOST_FINALISTS])


def decide(
    entrants: Entrants,
    chosen: Sequence[Trial],
    *,
    calibration: Requests,
    gate: Requests,
    name: str,
    store: Store,
    seconds: float,
    tell: Callable[[str], None],
) -> Decision:
    """The first finalist that passes the budget on `gate`, else the first that is undecided; it is written to `store` as `name`."""
    if not chosen:
        return Decision()
    with tempfile.TemporaryDirectory(prefix="liftgate-") as place:
        return _decided(
            entrants, chosen, calibration=calibration, gate=gate, name=name, store=store, place=Path(place), seconds=seconds, tell=tell
        )


def _decided(
    entrants: Entrants,
    chosen: Sequence[Trial],
    *,
    calibration: Requests,
    gate: Requests,
    name: str,
    store: Store,
    place: Path,
    seconds: float,
    tell: Callable[[str], None],
) -> Decision:
    sessions = [_session(entrants, trial) for trial in chosen]
    race = entrants.bench.beside(sessions, seconds=max(1.0, seconds * _RACE_SHARE))
    order = sorted(range(len(chosen)), key=lambda i: (chosen[i].outcome is not Outcome.PASS, race.median_us(i + 1)))
    strict = entrants.floors.stricter(len(chosen))
    tried, notes = list[Finalist](), list[str]()
    undecided: tuple[ModelArtifact, Recipe, Verdict] | None = None
    scratch = Store(place)
    control = _judged(entrants.base, gate, strict, entrants.seed)
    for i in order:
        trial, recipe = chosen[i], recipe_of(chosen[i], name)
        try:
            # Trials learned from some of the requests; what is shipped learns from all, as `optimize apply` does.
            made = apply(recipe, entrants.parent, name=name, requests=calibration, base=entrants.base, store=scratch)
            quality, verdict = _gate(entrants, made, control, strict=strict, gate=gate, seconds=seconds * (1 - _RACE_SHARE))
        except LiftgateError as error:
            notes.append(f"trial {trial.number} could not be made again or measured: {error}")
            continue
        tell(f"gate on trial {trial.number}: {verdict.outcome} ({label(trial.steps)} on {trial.runtime})")
        tried.append(Finalist(trial=trial.number, latency=race.ratio(i + 1), us=race.median_us(i + 1), quality=quality, verdict=verdict))
        if verdict.outcome in {Outcome.PASS, Outcome.INVALID}:  # a machine that cannot be trusted now would not be for the next one
            undecided = made, recipe, verdict
            break
        if verdict.outcome is not Outcome.FAIL and undecided is None:
            undecided = made, recipe, verdict
    if undecided is None:
        return Decision(finalists=tuple(tried), verdict=tried[0].verdict if tried else None, notes=tuple(notes))
    made, recipe, verdict = undecided
    return Decision(finalists=tuple(tried), winner=store.adopt(made, name).ref(), recipe=recipe, verdict=verdict, notes=tuple(notes))


def recipe_of(trial: Trial, name: str) -> Recipe:
    """The trial as a recipe that `optimize apply` repeats."""
    session = SessionDefaults(runtime="openvino") if trial.runtime == "openvino" else None
    words = f"{label(trial.steps)} on {trial.runtime}, found by optimize search"
    return Recipe(name=name[:61], version=1, description=words, steps=trial.steps, session=session)


def _session(entrants: Entrants, trial: Trial) -> Session:
    made = entrants.cache.apply(trial.steps)
    ref = ModelRef(name=f"trial {trial.number}", digest=made.digest, runtime=trial.runtime, size_bytes=made.size_bytes)
    return open_model(made.path, made.signature, ref, entrants.settings, runtime=trial.runtime)


def _gate(
    entrants: Entrants, made: ModelArtifact, control: Evaluation, *, strict: Floors, gate: Requests, seconds: float
) -> tuple[tuple[QualityChange, ...], Verdict]:
    """The whole budget on `gate`: the floors first, and what has to be measured in processes of its own only if none is broken."""
    parts = pair(control, _judged(made, gate, strict, entrants.seed))
    findings = list(strict.verdict(entrants.base.ref(), made.ref(), parts).findings)
    rest = tuple(g for g in entrants.budget.gates if not g.is_quality)
    broken = any(finding.outcome is Outcome.FAIL and finding.level == "error" for finding in findings)
    if rest and not broken:
        findings += _measured(entrants, made, gate, rest, seconds)
    verdict = judge(findings)
    if verdict is None:
        raise AssertionError("there is always at least one floor")
    return tuple(part.change() for part in parts), verdict


def _judged(model: ModelArtifact, gate: Requests, floors: Floors, seed: int) -> Evaluation:
    session = open_artifact(model, SessionSettings())
    return evaluate_users(session, gate.restrict(session.signature), metrics=floors.metrics, seed=seed)


def _measured(entrants: Entrants, made: ModelArtifact, gate: Requests, gates: tuple[Gate, ...], seconds: float) -> tuple[Finding, ...]:
    unlabelled = Requests(gate.table.drop_columns([columns.LABEL]), source=gate.source)
    budget = msgspec.structs.replace(entrants.budget, gates=gates)
    found = compare(
        entrants.base,
        made,
        requests=unlabelled,
        budget=budget,
        instances=budget.instances or (LOCAL,),
        seconds=min(_LONGEST_S, max(1.0, seconds / max(1, len(budget.instances)))),
        launches=_LAUNCHES,
        seed=entrants.seed,
        threads=None if budget.instances else entrants.settings.threads,
    ).candidates[0]
    return () if found.verdict is None else found.verdict.findings
