"""`load`: models under open-loop load, side by side at the same arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from ...core.artifact import ModelRef
from ...core.errors import InputError
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.store import Store
from ..arrivals import Arrivals, ref_of
from ..health import disturbances, drift, read_counters
from ..inputs import Model, check_duration, load_placements
from ..launch import Subject
from ..machines.instance import LOCAL, Placement
from ..measure import LAUNCHES, Launch, lag_reasons, memory_reasons
from ..provenance import provenance_of
from ..result import QUANTILES
from ..setting import Positions, Setting, laid_out, set_up, start_workers
from ..statistics import quantile_estimate
from .limits import LatencyLimit, parse_limits
from .result import Load, ModelLoad
from .trial import Trial, answer, lag_ms, over_trials, overload, play, quantile, services, unsettled, utilisation

# Fewer requests than this per process say nothing, more than that do not fit a message.
_FEWEST, _MOST = 20, 300_000
_SEVERAL_SERVERS = ("onnxruntime", "pytorch")


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """Raw results: `trials[m][l]` is what launch `l` of model `m` did."""

    result: Load
    request_ids: tuple[str, ...]
    trials: tuple[tuple[Trial, ...], ...]


def load(
    models: Sequence[Model],
    arrivals: Arrivals,
    *,
    requests: Requests | Path | str | None = None,
    budget: str | None = None,
    instance: str = LOCAL,
    servers: int = 1,
    seconds: float = 20.0,
    launches: int = LAUNCHES,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> LoadRun:
    """Latency of `models` when requests come as `arrivals` say, for about `seconds` each, over `launches` fresh processes.

    Models take turns, in an order drawn anew for every launch, at the same requests and the same arrivals. `budget` holds limits as text or
    the path of a budget file. Raises InputError before anything is measured, RunFailed when a worker dies.
    """
    check_duration(seconds, launches)
    placement = placed(instance, threads, servers)
    mine = share(arrivals, placement)
    count = _requests_per_launch(mine, seconds, launches, parts=placement.parts)
    limits = () if budget is None else parse_limits(budget, instance=placement.instance.name)
    at = set_up(models, requests=requests, placement=placement, seed=seed, store=store)
    check_servers(at.subjects, servers)
    before = read_counters(placement.cpus)
    trials, launched = _measure(at, mine, count=count, launches=launches, servers=servers, progress=progress)
    seen = disturbances(before, read_counters(placement.cpus), [trial.wait for told in trials for trial in told])
    invalid = seen.fatal + seen.shared + memory_reasons(launched, at.subjects, placement)
    result = Load(
        provenance=provenance_of(at, servers=servers),
        arrivals=ref_of(arrivals),
        models=tuple(
            summary(s.ref, told, servers=servers, limits=limits, parts=placement.parts, trusted=not invalid)
            for s, told in zip(at.subjects, trials, strict=True)
        ),
        invalid=invalid,
    )
    return LoadRun(result=result, request_ids=tuple(at.pool.request_ids), trials=tuple(tuple(told) for told in trials))


def _measure(
    at: Setting, arrivals: Arrivals, *, count: int, launches: int, servers: int, progress: Progress
) -> tuple[list[list[Trial]], list[Launch]]:
    """Every model's trials, one of `count` requests per launch, and what its processes told."""
    positions = Positions(len(at.pool), at.rng)
    trials: list[list[Trial]] = [[] for _ in at.subjects]
    told: list[Launch] = []
    with laid_out(at.pool, at.placement.cpus) as file:
        for launch in range(launches):
            with ExitStack() as living:
                workers, readies = start_workers(at.subjects, at.placement, at.store, file, living=living, rng=at.rng)
                drawn, due_ns = positions.draw(count), arrivals.draw(count, at.rng)
                for turn, model in enumerate(at.rng.permutation(len(at.subjects)).tolist()):
                    trials[model].append(play(workers[model], drawn, due_ns, servers))
                    progress(f"load on {at.placement.instance.name}", launch * len(at.subjects) + turn + 1, launches * len(at.subjects))
                told += [Launch(model=m, ready=readies[m], ended=worker.stop()) for m, worker in enumerate(workers)]
    return trials, told


def share(arrivals: Arrivals, placement: Placement) -> Arrivals:
    """What one of an extrapolated instance's parts gets of the arrivals: as many fewer, a trace as if time were slower."""
    return arrivals if placement.parts == 1 else arrivals.at_rate(arrivals.rate_per_s / placement.parts)


def summary(
    ref: ModelRef, trials: Sequence[Trial], *, servers: int, limits: Sequence[LatencyLimit], parts: int = 1, trusted: bool = True
) -> ModelLoad:
    """What a model's trials, one per launch, amount to; limits stay unanswered when they, or the whole run (`trusted`), are invalid.

    Rates are those of all `parts` together.
    """
    by_service = services(trials)
    quantiles = {**QUANTILES, **{limit.quantile: limit.p for limit in limits}}
    latency = {name: quantile(trials, p, servers) for name, p in sorted(quantiles.items(), key=lambda item: item[1])}
    lag = {name: lag_ms(trials, p) for name, p in QUANTILES.items()}
    against = {limit.text: limit.limit_ms for limit in limits} or {"latency's p95": latency["p95"].value or 0.0}
    changed = drift(by_service)
    invalid = lag_reasons(lag["p99"], against) + (() if changed is None else (changed,))
    answers = [answer(trials, limit, servers) for limit in limits]
    return ModelLoad(
        model=ref,
        latency_ms=latency,
        service_ms={name: quantile_estimate(by_service, p) for name, p in QUANTILES.items()},
        lag_ms=lag,
        offered_per_s=parts * sum(len(t.due_ns) for t in trials) / (sum(t.span_ns for t in trials) / 1e9),
        achieved_per_s=over_trials([parts * len(t.latency_ns) / (t.end_ns / 1e9) for t in trials]),
        utilisation=over_trials([utilisation(t, servers) for t in trials]),
        requests=sum(len(t.due_ns) for t in trials),
        unanswered=sum(t.unanswered for t in trials),
        launches=len(trials),
        overload=overload(trials, servers),
        unsettled=unsettled(trials, servers),
        limits=tuple(answers if trusted and not invalid else (msgspec.structs.replace(one, answer="invalid") for one in answers)),
        invalid=invalid,
    )


def placed(instance: str, threads: int | None, servers: int) -> Placement:
    """Where to run: the instance's cores are shared between servers unless `threads` says how many each request gets."""
    if servers < 1:
        raise InputError.mismatch("--servers", expected="at least 1", found=str(servers))
    try:
        placement = load_placements([instance], None if threads is None else threads * servers)[0]
    except InputError as error:
        if servers == 1 or error.where != "--threads":
            raise
        where = f"--servers {servers} with --threads {threads}"
        raise InputError(where, f"are {servers * (threads or 1)} threads: {error.problem}", fix=error.fix) from None
    placement = msgspec.structs.replace(placement, threads=max(1, placement.threads // servers))
    if servers * placement.threads > len(placement.cpus):
        found = f"{servers} servers of {placement.threads} threads on {len(placement.cpus)} CPUs of {placement.instance.name}"
        raise InputError.mismatch("--servers", expected="a CPU for every thread", found=found, fix="lower --servers or --threads")
    return placement


def check_servers(subjects: Sequence[Subject], servers: int) -> None:
    """Raise InputError for a runtime whose sessions answer one request at a time."""
    for subject in subjects:
        if servers > 1 and subject.ref.runtime not in _SEVERAL_SERVERS:
            expected = f"one server for {subject.ref.name}, as {subject.ref.runtime} answers one request at a time"
            raise InputError.mismatch("--servers", expected=expected, found=str(servers))


def _requests_per_launch(arrivals: Arrivals, seconds: float, launches: int, *, parts: int = 1) -> int:
    count = int(arrivals.rate_per_s * seconds / launches)
    if count < _FEWEST:
        needed = _FEWEST * launches / arrivals.rate_per_s
        part = "" if parts == 1 else f", 1 of {parts} parts of {arrivals.rate_per_s * parts:g}"
        found = f"{count} ({arrivals.rate_per_s:g} requests/s{part}, {seconds:g} s over {launches} launches)"
        fix = f"give --seconds {needed:.0f} or fewer --launches"
        raise InputError.mismatch("load", expected=f"at least {_FEWEST} requests per launch", found=found, fix=fix)
    if count > _MOST:
        raise InputError.mismatch("load", expected=f"at most {_MOST:,} requests per launch", found=f"{count:,}", fix="lower --seconds")
    return count
