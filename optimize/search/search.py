"""`optimize search`: the accuracy-latency front of a model over steps and runtimes, under a budget's quality floors."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from ...core.artifact import ModelArtifact
from ...core.errors import InputError
from ...core.files import write_atomically
from ...core.machine import this_machine, tool_versions
from ...core.progress import Progress, silent
from ...core.requests import Requests
from ...core.session_defaults import Runtime
from ...core.store import Store, check_name
from ...profile.budget import Budget, read_budget
from ...profile.inputs import check_quality
from ...runtime.runtimes import read_runtimes
from ...runtime.session import SessionSettings
from .bench import Bench
from .cache import Made, StepCache
from .finals import Entrants, decide, finalists
from .floors import Floors
from .result import Search, Trial, front
from .space import NOTHING, RUNTIME, SPACE, Slot, Steps, label, sequence
from .study import Study

# The rest of the time is for the finalists: their race, and the gate.
_SEARCHING_SHARE = 0.75
_LEARNED_FROM = 256
Tell = Callable[[str], None]


def search(
    model: ModelArtifact | str | Path,
    *,
    base: ModelArtifact | str | Path,
    requests: Requests | Path | str,
    gate_requests: Requests | Path | str,
    budget: Budget | Path | str,
    seconds: float = 600.0,
    threads: int = 1,
    runtimes: Sequence[str] = ("onnxruntime",),
    name: str | None = None,
    seed: int = 0,
    trials: int | None = None,
    space: Sequence[Slot] = SPACE,
    store: Store | Path | str | None = None,
    progress: Progress = silent,
    tell: Tell = lambda _: None,
) -> Search:
    """Try sequences of steps on `model` for about `seconds` (or `trials` trials), and write the best as a new artifact, `<model>-best`.

    Trials are timed against `model` and judged against `base` on `requests`, which steps also learn from; the fastest ones that hold every
    floor of the budget then go through the whole budget on `gate_requests`, which had no part in the choice. Nothing is written under a
    name unless the gate says PASS or UNDECIDED. Everything tried is kept below the store, so the same search goes on where it was when it
    was interrupted; `seconds` counts what was spent before. Raises InputError for whatever was given wrong, before anything is tried.
    """
    begun = time.monotonic()
    shelf = Store.of(store)
    parent, control = (m if isinstance(m, ModelArtifact) else shelf.resolve(m) for m in (model, base))
    best = check_name(name or f"{parent.manifest.name}-best")
    where = f"search {parent.manifest.name}"
    chosen_runtimes = read_runtimes(runtimes, where=f"{where}: --runtimes")
    judged = budget if isinstance(budget, Budget) else read_budget(Path(budget))
    floors = Floors.of(judged)
    asked, held_out = _load(requests, gate_requests, (parent, control), judged)
    if seconds <= 0:
        raise InputError.mismatch(f"{where}: --time", expected="more than 0", found=f"{seconds:g} s")
    settings = SessionSettings(threads=threads)
    folder = shelf.root / "search"
    requests_sha = requests_digest(asked)
    steps = StepCache(folder / "steps", parent, base=control, requests=_some(asked), requests_sha=requests_sha)
    progress("measuring the parent and the base", 0, 1)
    bench = Bench(parent, control, asked, floors, settings=settings, seed=seed)
    about = [requests_sha, control.manifest.digest, judged.gates, threads, seed, this_machine().fingerprint, tool_versions()]
    run = _Run(bench, steps, space, _TrialCache(folder / "trials", about), deadline_s=seconds * _SEARCHING_SHARE, begun=begun, tell=tell)
    run.exact_steps(tell)
    study = Study(space, chosen_runtimes, seed=seed)
    while not run.over(trials):
        progress("searching", min(int(run.spent), int(seconds)), max(int(seconds), 1))
        proposed = study.propose()
        if proposed is None:
            tell(f"all {study.combinations} combinations were tried")
            break
        study.learn(run.trial(proposed))
    found = tuple(sorted(run.found.values(), key=lambda trial: trial.number))
    entrants = Entrants(parent=parent, base=control, bench=bench, cache=steps, floors=floors, budget=judged, settings=settings, seed=seed)
    chosen = finalists(found)
    progress("judging the finalists", 0, 1)
    decision = decide(
        entrants, chosen, calibration=asked, gate=held_out, name=best, store=shelf, seconds=seconds * (1 - _SEARCHING_SHARE), tell=tell
    )
    return Search(
        parent=parent.ref(),
        base=control.ref(),
        requests=asked.ref,
        gate_requests=held_out.ref,
        budget=judged.source,
        metric=floors.metrics[0],
        trials=found,
        front=front(found),
        finalists=decision.finalists,
        winner=decision.winner,
        recipe=decision.recipe,
        verdict=decision.verdict,
        closest=None if decision.winner is not None else closest(found),
        combinations=study.combinations,
        machine=this_machine(),
        tools=tool_versions(),
        threads=threads,
        seed=seed,
        seconds=round(time.monotonic() - begun, 3),
        notes=(*run.notes, *decision.notes),
    )


def closest(trials: Sequence[Trial]) -> int | None:
    """The trial that came nearest to holding every floor; None when no quality was seen."""
    seen = [trial for trial in trials if trial.margin is not None]
    return max(seen, key=lambda t: (t.holds, t.margin or 0.0, -t.number)).number if seen else None


def _some(requests: Requests) -> Requests:
    """What the steps of trials learn from: enough to rank trials by, drawn evenly from the file."""
    spread = np.linspace(0, len(requests) - 1, min(_LEARNED_FROM, len(requests))).astype(int)
    return requests.take(spread.tolist())


def requests_digest(requests: Requests) -> str:
    """Sha256 of the file, or of the rows where there is none."""
    if requests.ref.sha256 is not None and not requests.ref.generated:
        return requests.ref.sha256
    return hashlib.sha256(msgspec.json.encode([str(requests.table.schema), requests.table.to_pylist()], enc_hook=str)).hexdigest()


def _load(
    requests: Requests | Path | str, gate_requests: Requests | Path | str, models: Sequence[ModelArtifact], budget: Budget
) -> tuple[Requests, Requests]:
    """Both sets, checked: labels, columns, the budget's segments, and no request in both."""
    asked, held_out = Requests.load(requests), Requests.load(gate_requests)
    for found in (asked, held_out):
        if found.labels is None:
            fix = "add one: a list per request, one relevance per candidate"
            raise InputError.mismatch(found.source, expected="a column 'label' to judge rankings by", found="none", fix=fix)
        for model in models:
            found.restrict(model.manifest.signature).check(model.manifest.signature)
        check_quality(budget, found)
    both = sorted(set(asked.request_ids) & set(held_out.request_ids))
    if both:
        some = ", ".join(both[:3])
        fix = "split the requests, best by time or by user: what chose a model cannot also judge it"
        raise InputError.mismatch(
            held_out.source, expected=f"none of the requests of {asked.source}", found=f"{len(both)} of them ({some})", fix=fix
        )
    return asked, held_out


class _TrialCache:
    """Results of trials by everything that they depend on, in a folder."""

    def __init__(self, root: Path, about: object) -> None:
        self._root = root
        self._about = hashlib.sha256(msgspec.json.encode(about, order="sorted")).hexdigest()

    def path(self, made: Made, runtime: str) -> Path:
        key = hashlib.sha256(msgspec.json.encode([self._about, made.digest, runtime])).hexdigest()
        return self._root / f"{key[:32]}.json"

    def get(self, made: Made, runtime: str) -> Trial | None:
        try:
            return msgspec.json.decode(self.path(made, runtime).read_bytes(), type=Trial)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, made: Made, trial: Trial) -> None:
        write_atomically(self.path(made, trial.runtime), msgspec.json.encode(trial))


class _Run:
    """The trials so far, and how long they took, now or in earlier runs of the same search."""

    def __init__(
        self, bench: Bench, steps: StepCache, space: Sequence[Slot], cache: _TrialCache, *, deadline_s: float, begun: float, tell: Tell
    ) -> None:
        self._bench, self._steps, self._space, self._cache, self._tell = bench, steps, space, cache, tell
        self._deadline_s, self._begun = deadline_s, begun
        self._before_s = 0.0
        self._exact: dict[str, Steps] = {}
        self.found: dict[str, Trial] = {}
        self.notes: list[str] = []

    @property
    def spent(self) -> float:
        """Seconds of this run, and those that trials out of the cache took."""
        return time.monotonic() - self._begun + self._before_s

    def over(self, trials: int | None) -> bool:
        return self.spent > self._deadline_s or (trials is not None and len(self.found) >= trials)

    def exact_steps(self, tell: Tell) -> None:
        """Try the parent alone, then add one exact step after another, each only where it applies and is not slower than without it."""
        nothing = {slot.name: NOTHING for slot in self._space}
        start = {**nothing, RUNTIME: "onnxruntime"}
        before = self.trial(start)
        made = self._steps.apply(sequence(self._space, start, self._exact))
        for slot in self._space:
            for steps in slot.choices if slot.exact else ():
                self._exact[slot.name] = steps
                after = self.trial(start, (made, before))
                if after.number != before.number and after.holds:
                    before, made = after, self._steps.apply(sequence(self._space, start, self._exact))
                    self._bench.refer_to(made, after)
                    break
                del self._exact[slot.name]
                reason = next(iter(after.refusals[-1:]), "") or after.reason or "changes nothing"
                self.notes.append(f"{label(steps)} is left out: {reason}")
        tell(f"in every trial: {label([step for steps in self._exact.values() for step in steps])}")

    def trial(self, chosen: Mapping[str, str], same_as: tuple[Made, Trial] | None = None) -> Trial:
        """The result of a combination, from the cache if it is there; combinations that come to the same steps are one trial."""
        made = self._steps.apply(sequence(self._space, chosen, self._exact))
        runtime: Runtime = "openvino" if chosen[RUNTIME] == "openvino" else "onnxruntime"
        key = f"{made.digest} {runtime}"
        if key in self.found:
            return self.found[key]
        cached = self._cache.get(made, runtime)
        number = len(self.found)
        if cached is not None:
            self._before_s += cached.seconds
            trial = msgspec.structs.replace(cached, number=number)
        else:
            trial = self._bench.trial(number, made, runtime, same_as)
            self._cache.keep(made, trial)
        self._announce(trial)
        self.found[key] = trial
        self._steps.tidy([made])
        return trial

    def _announce(self, trial: Trial) -> None:
        """Tell of a trial that is the first to hold, or the fastest that does."""
        value = None if trial.latency is None else trial.latency.value
        if not trial.holds or value is None or trial.overall is None:
            return
        held = [t.latency.value for t in self.found.values() if t.holds and t.latency is not None and t.latency.value is not None]
        if not held or value < min(held):
            quality = f"quality {trial.overall.text(4)} of the base, worst floor {trial.margin or 0.0:+.4f}"
            self._tell(f"trial {trial.number}: {value:.3f} of the parent's time, {quality}: {label(trial.steps)} on {trial.runtime}")
