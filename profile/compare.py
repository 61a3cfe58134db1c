"""`compare`: a control and its treatments side by side, on instances and on labelled requests, judged by a budget."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ..core.errors import InputError
from ..core.machine import this_machine, tool_versions
from ..core.progress import Progress, silent
from ..core.requests import Requests
from ..core.store import Store
from ..quality.evaluate import METRICS, Evaluation, PairedPart, evaluate_users, pair
from ..quality.metrics import parse_metric
from .budget import LATENCY, Budget, Conditions, MaxRegress, read_budget
from .calibrate import check_margins, find_calibration
from .command import obstacles_to_repeating, repeatable, repeated, settings
from .inputs import Model, check_duration, check_quality, check_times, load_placements, load_requests, load_subjects
from .judge import Evidence, clear, verdict
from .launch import Subject
from .machines.instance import LOCAL, Placement
from .measure import LAUNCHES, Run, measure
from .result import Candidate, Comparison
from .run_folder import check_folder, write_run
from .summary import summarize


def compare(
    control: Model,
    *treatments: Model,
    requests: Requests | Path | str | None = None,
    budget: Budget | Path | str | None = None,
    instances: Sequence[str] = (LOCAL,),
    metrics: Sequence[str] = METRICS,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    run_dir: Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Latency (at most about `seconds` of measuring per instance, less when the budget's answer is clear), quality, and the verdicts.

    Without `requests` they are generated from the control's signature, and quality stays empty; without `budget` nothing is judged.
    Instances that the budget's gates name are measured, too. With `run_dir`, `comparison.json`, `samples.parquet` and
    `quality_per_user.parquet` are written there. Raises InputError for whatever the user gave wrong before anything is measured,
    RunFailed when a worker dies.
    """
    begun, started_at = time.monotonic(), datetime.now(UTC)
    store = Store.of(store)
    if not treatments:
        raise InputError.mismatch("compare", expected="a control and at least one treatment", found="one model")
    check_duration(seconds, launches)
    judged = read_budget(Path(budget)) if isinstance(budget, Path | str) else budget
    conditions = dict.fromkeys((*(Conditions(instance=name) for name in instances), *(judged.conditions if judged else ())))
    placements = {at: load_placements([at.instance], threads)[0] for at in conditions}
    subjects = load_subjects((control, *treatments), store)
    asked = load_requests(requests, subjects, seed)
    check_times(judged, placements)
    check_quality(judged, asked)
    if run_dir is not None:
        check_folder(Path(run_dir))
    uncalibrated = _check_margins(judged, placements, subjects[0], store, seconds=seconds, launches=launches)
    chosen = _metrics(metrics, judged)
    evaluations = _evaluate_all(subjects, asked, metrics=chosen, seed=seed, store=store, progress=progress)
    runs = {
        at: measure(
            subjects,
            asked,
            placement,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=store,
            progress=progress,
            rate_per_s=at.rate_per_s,
            enough=_enough(judged, subjects, at),
        )
        for at, placement in placements.items()
    }
    pairs = [pair(evaluations[0], other) for other in evaluations[1:]] or [()] * len(treatments)
    obstacles = obstacles_to_repeating(requests, budget, instances=[at.name for at in runs], metrics=chosen)
    words = [
        *repeatable((control, *treatments), requests=requests, budget=budget, store=store),
        *_repeated_choices(list(runs), chosen, judged),
        *settings(seconds=seconds, launches=launches, seed=seed, threads=threads, store=store),
    ]
    result = Comparison(
        control=subjects[0].ref,
        candidates=tuple(_candidate(number, subjects, runs, parts, judged) for number, parts in enumerate(pairs, start=1)),
        requests=asked.ref,
        instances=tuple(summarize(run, subjects) for run in runs.values()),
        quality=tuple(e.quality() for e in evaluations),
        budget=judged.source if judged else None,
        machine=this_machine(),
        tools=tool_versions(),
        seed=seed,
        started_at=started_at.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 3),
        command="" if obstacles else shlex.join(words),
        notes=(*_runtimes(subjects), *_notes(asked, judged, obstacles, uncalibrated)),
    )
    if run_dir is not None:
        result = write_run(Path(run_dir), result, list(runs.values()), evaluations)
    return result


def _metrics(metrics: Sequence[str], budget: Budget | None) -> tuple[str, ...]:
    """What was asked for and what gates speak about, each once; raises UnknownName."""
    for name in metrics:
        parse_metric(name, where="--metric")
    return tuple(dict.fromkeys((*metrics, *(budget.quality_metrics if budget else ()))))


def _repeated_choices(measured: Sequence[Conditions], metrics: Sequence[str], budget: Budget | None) -> list[str]:
    """Options for instances and metrics; those that the budget brings are not named again."""
    closed = [at.instance for at in measured if at.rate_per_s is None]
    usual = [LOCAL, *(at.instance for at in (budget.conditions if budget else ()) if at.rate_per_s is None)]
    return [*repeated("--instance", closed, usual), *repeated("--metric", metrics, _metrics(METRICS, budget))]


def _evaluate_all(
    subjects: Sequence[Subject], requests: Requests, *, metrics: Sequence[str], seed: int, store: Store, progress: Progress
) -> list[Evaluation]:
    """Per-user quality of every model; empty when the requests carry no labels."""
    if requests.labels is None:
        return []
    found = []
    for subject in subjects:
        mine = requests.restrict(subject.signature)
        evaluation = evaluate_users(subject.path, mine, metrics=metrics, seed=seed, store=store, progress=progress)
        found.append(msgspec.structs.replace(evaluation, model=subject.ref))
    return found


def _check_margins(
    budget: Budget | None, placements: Mapping[Conditions, Placement], control: Subject, store: Store, *, seconds: float, launches: int
) -> list[str]:
    """Refuse gates tighter than a calibrated machine can judge; returns the instances with relative gates that nobody calibrated."""
    if budget is None:
        return []
    unknown = []
    # A calibration is of service times and says nothing about queues.
    for at in (at for at in budget.conditions if at.rate_per_s is None):
        calibration = find_calibration(store, at.instance, placements[at].threads, control)
        if calibration is not None:
            check_margins(budget, calibration, seconds, launches)
        elif any(g.at == at and g.metric in LATENCY and isinstance(g.limit, MaxRegress) for g in budget.gates):
            unknown.append(at.instance)
    return unknown


def _enough(budget: Budget | None, subjects: Sequence[Subject], at: Conditions) -> Callable[[Run], bool] | None:
    """Whether every gate under these conditions is clear for every treatment; None when there is no such gate."""
    if budget is None or at not in budget.conditions:
        return None

    def enough(run: Run) -> bool:
        told = [_evidence(number, subjects, {at: run}, ()) for number in range(1, len(subjects))]
        return clear(budget, told, at)

    return enough


def _evidence(number: int, subjects: Sequence[Subject], runs: dict[Conditions, Run], parts: tuple[PairedPart, ...]) -> Evidence:
    return Evidence(control=subjects[0].ref, treatment=subjects[number].ref, model=number, runs=runs, quality=parts)


def _candidate(
    number: int, subjects: Sequence[Subject], runs: dict[Conditions, Run], parts: tuple[PairedPart, ...], budget: Budget | None
) -> Candidate:
    evidence = _evidence(number, subjects, runs, parts)
    return Candidate(
        model=evidence.treatment,
        quality=tuple(part.change() for part in parts),
        verdict=verdict(budget, evidence) if budget is not None else None,
    )


def _runtimes(subjects: Sequence[Subject]) -> list[str]:
    """Whether models are compared together with what runs them."""
    found = dict.fromkeys(subject.ref.runtime for subject in subjects)
    if len(found) == 1:
        return []
    told = ", ".join(f"{subject.ref.name} in {subject.ref.runtime}" for subject in subjects)
    return [f"different runtimes are compared, not models alone ({told}): export both to compare what is shipped"]


def _notes(requests: Requests, budget: Budget | None, obstacles: Sequence[str], uncalibrated: Sequence[str]) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    notes = []
    if requests.ref.generated:
        notes.append(f"no requests were given: {requests.ref.note}; real traffic will differ")
    if requests.labels is None:
        notes.append("the requests carry no labels, so ranking quality was not judged")
    if budget is None:
        notes.append("no budget was given, so nothing was judged")
    if obstacles:
        notes.append(f"no command repeats this comparison: {' and '.join(obstacles)}")
    else:
        notes.append("a gate decides by intervals that are one-sided at its alpha (5 % unless said otherwise); tables show 95 % two-sided")
    if uncalibrated:
        where = ", ".join(uncalibrated)
        notes.append(f"{where} was not calibrated with this control: `profile calibrate` tells beforehand which margins it can judge")
    notes.append("where no rate is named, latency is service time of one request at a time (closed loop), without network or queueing")
    return tuple(notes)
