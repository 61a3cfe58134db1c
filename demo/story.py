"""The whole chain on one case: data, two models, recipes, comparison, choice, judgement, live test, report."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from .. import analyse, apply, compare, export, report
from ..core.errors import InputError, LiftgateError
from ..core.files import write_atomically
from ..core.machine import this_machine
from ..core.progress import Progress
from ..core.store import Store
from ..core.verdict import Outcome, Verdict
from ..serve.process import RouterProcess
from . import words
from .case import Case, prepare, train_both
from .choice import RULE, Choice, Facts, choose
from .clicks import ClickModel
from .dataset import Dataset
from .replay import Replayed, replay
from .scale import Scale
from .stages import Stages

STAGES = 9
DECIDING = "m5.large"
INSTANCES = ("local", DECIDING)
EXPERIMENT = "demo"
_MARKER = "demo.json"
_OURS = ("requests", "models", "store", "selection", "live", "report", "budget.toml", "experiment.toml", _MARKER)


class Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a demo ended; `judged` is the verdict on the chosen model on holdout requests, `live` that of the A/B test."""

    schema_version: int = 1
    kind: str = "demo"
    data: str
    generated: bool
    seed: int
    scale: str
    candidates: tuple[Facts, ...]
    refused: tuple[str, ...]
    choice: Choice
    judged: Verdict | None
    live: Verdict
    replayed: Replayed
    page: str
    seconds: dict[str, float]


class _Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are in the demo's folder."""

    out: Path

    @property
    def store(self) -> Store:
        return Store(self.out / "store")

    @property
    def budget(self) -> Path:
        return self.out / "budget.toml"

    @property
    def experiment(self) -> Path:
        return self.out / "experiment.toml"

    @property
    def logs(self) -> Path:
        return self.out / "live"

    @property
    def run(self) -> Path:
        return self.out / "report"

    def requests(self, name: str) -> Path:
        return self.out / "requests" / f"{name}.parquet"

    def archive(self, name: str) -> Path:
        return self.out / "models" / f"{name}.pt"


def tell_story(read: Callable[[], Dataset], out: Path, scale: Scale, *, seed: int, stages: Stages) -> Told:
    """Run the chain and write everything below `out`; the page to open is `out/report/report.html`.

    `out` must be new, empty or the folder of an earlier demo, whose results are removed first. Raises a LiftgateError when a stage cannot
    go on; what earlier stages finished stays, and there is no report then.
    """
    at = _Places(out=out)
    _check_folder(out)
    case = _prepare(at, read, scale, seed=seed, stages=stages)
    with stages.stage("Training v1.0 on everyone, fine-tuning v1.1 on power users") as progress:
        train_both(case, scale, out / "models", seed=seed, progress=progress)
    with stages.stage("Exporting both, checked against PyTorch") as progress:
        for name in ("v1.0", "v1.1"):
            export(at.archive(name), name=name, store=at.store, requests=at.requests("calibration"), progress=progress)
    with stages.stage("Applying recipes to v1.1") as progress:
        made, refused = _apply_recipes(at, scale, progress)
    for line in refused:
        stages.tell(f"      refused: {line}")
    candidates, choice = _select(at, ("v1.1", *made), scale, seed=seed, stages=stages)
    judged = _judge(at, choice, scale, seed=seed, stages=stages)
    replayed = _live(at, case, choice, seed=seed, stages=stages)
    told = words.paragraphs(case, scale, choice, refused=refused, replayed=replayed, seed=seed, store=str(at.store.root))
    live = _report(at, case.data, told, stages=stages)
    return Told(
        data=case.data.sentence,
        generated=case.data.generated,
        seed=seed,
        scale=scale.name,
        candidates=candidates,
        refused=refused,
        choice=choice,
        judged=judged,
        live=live,
        replayed=replayed,
        page=str(at.run / "report.html"),
        seconds=stages.seconds,
    )


def _prepare(at: _Places, read: Callable[[], Dataset], scale: Scale, *, seed: int, stages: Stages) -> Case:
    """Read, split, ask, and write what later stages (and people) read: requests, budget, settings."""
    with stages.stage("Reading the data"):
        data = read()
    stages.tell(f"      {data.sentence}")
    # Only now: bad data must not cost the results of an earlier demo.
    _clear(at.out)
    with stages.stage("Splitting by time, making requests"):
        case = prepare(data, scale, seed=seed)
        settings = {"data": case.data.sentence, "seed": seed, "scale": scale.name}
        write_atomically(at.out / _MARKER, msgspec.json.encode(settings))
        write_atomically(at.budget, words.BUDGET)
        for name, requests in (("calibration", case.calibration), ("validation", case.validation), ("holdout", case.holdout)):
            requests.write(at.requests(name))
    stages.tell(f"      {case.summary}")
    return case


def _check_folder(out: Path) -> None:
    """Raise InputError when the folder holds something else than an earlier demo."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARKER).is_file())):
        raise InputError.mismatch(
            str(out), expected="a new or empty folder, or an earlier demo's", found="other files", fix="choose another --out"
        )


def _clear(out: Path) -> None:
    """Remove an earlier demo's results."""
    for name in _OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / _MARKER, "{}")


def _apply_recipes(at: _Places, scale: Scale, progress: Progress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the artifacts made from v1.1, and the recipes that refused, with their reasons."""
    vnni = {"avx512_vnni", "avx_vnni"} & set(this_machine().features)
    recipes = (*scale.recipes, "int8-vnni") if vnni else scale.recipes
    made, refused = [], []
    for number, recipe in enumerate(recipes):
        progress("recipes", number, len(recipes))
        # Calibration inside PyTorch starts from the archive, every other recipe from the exported artifact.
        source = at.archive("v1.1") if recipe == "int8-tuned" else "v1.1"
        try:
            artifact = apply(recipe, source, name=f"v1.1-{recipe}", requests=at.requests("calibration"), store=at.store)
        except LiftgateError as error:
            refused.append(f"{recipe}: {error}")
        else:
            made.append(artifact.manifest.name)
    return tuple(made), tuple(refused)


def _select(at: _Places, names: tuple[str, ...], scale: Scale, *, seed: int, stages: Stages) -> tuple[tuple[Facts, ...], Choice]:
    with stages.stage(f"Comparing {len(names)} candidates with v1.0 on validation requests") as progress:
        found = compare(
            "v1.0",
            *names,
            requests=at.requests("validation"),
            budget=at.budget,
            instances=INSTANCES,
            seconds=scale.seconds[0],
            launches=scale.launches,
            seed=seed,
            store=at.store,
            run_dir=at.out / "selection",
            progress=progress,
        )
        report(at.out / "selection")
    latency = {m.model.name: m.quantiles_ms["p95"].value for i in found.instances if i.instance == DECIDING for m in i.models}
    ndcg = {q.model.name: m.estimate.value for q in found.quality for m in q.metrics if m.metric == "ndcg@10" and m.segment == "all"}
    facts = tuple(
        Facts(
            name=c.model.name,
            outcome=Outcome.UNDECIDED if c.verdict is None else c.verdict.outcome,
            failed_gates=sum(f.outcome is Outcome.FAIL for f in c.verdict.findings) if c.verdict else 0,
            p95_ms=latency.get(c.model.name),
            ndcg=ndcg.get(c.model.name),
        )
        for c in found.candidates
    )
    control = f"p95 {_number(latency.get('v1.0'))} ms on {DECIDING} (emulated), NDCG@10 {_number(ndcg.get('v1.0'))}"
    stages.tell(f"      {'v1.0':<18} {control}")
    for fact in facts:
        stages.tell(f"      {fact.name:<18} p95 {_number(fact.p95_ms)} ms, NDCG@10 {_number(fact.ndcg)}: {fact.outcome}")
    choice = choose(facts)
    stages.tell(f"      {RULE}")
    stages.tell(f"      Chosen: {choice.reason}.")
    return facts, choice


def _judge(at: _Places, choice: Choice, scale: Scale, *, seed: int, stages: Stages) -> Verdict | None:
    """Compare the chosen model (and plain v1.1, for context) with v1.0 on requests that had no part in the choice."""
    with stages.stage(f"Judging {choice.name} on holdout requests") as progress:
        found = compare(
            "v1.0",
            *dict.fromkeys((choice.name, "v1.1")),
            requests=at.requests("holdout"),
            budget=at.budget,
            instances=INSTANCES,
            seconds=scale.seconds[1],
            launches=scale.launches,
            seed=seed + 1,
            store=at.store,
            run_dir=at.run,
            progress=progress,
        )
    verdict = found.candidates[0].verdict
    for finding in verdict.findings if verdict else ():
        stages.tell(f"      {finding.outcome} {finding.reason}")
    return verdict


def _live(at: _Places, case: Case, choice: Choice, *, seed: int, stages: Stages) -> Replayed:
    """Serve v1.0 and the chosen model side by side on loopback and replay the holdout users."""
    write_atomically(at.experiment, words.experiment(EXPERIMENT, choice, seed=seed))
    router = RouterProcess(at.experiment, logs=at.logs, store=at.store.root)
    with stages.stage(f"Serving v1.0 and {choice.name} to replayed users") as progress, router:
        clicks = ClickModel(seed=seed)
        replayed = replay(case.holdout, clicks, host=router.host, port=router.port, experiment=EXPERIMENT, seed=seed, progress=progress)
    stages.tell(f"      {replayed.requests:,} requests of {replayed.users} users, {replayed.clicks:,} clicks")
    return replayed


def _report(at: _Places, data: Dataset, told: tuple[str, ...], *, stages: Stages) -> Verdict:
    """Analyse the live test and write the page; returns the live verdict."""
    with stages.stage("Analysing the live test, writing the report"):
        command = f"liftgate experiment analyse {at.experiment} --logs {at.logs}"
        analysis = analyse(at.experiment, at.logs, command=command)
        story = {"title": words.TITLE, "paragraphs": told, "data": data.sentence, "generated": data.generated}
        write_atomically(at.run / "analysis.json", msgspec.json.encode(analysis))
        write_atomically(at.run / "story.json", msgspec.json.encode(story))
        report(at.run)
    stages.tell(f"      live: {analysis.verdict.outcome}")
    for finding in analysis.verdict.findings:
        stages.tell(f"        {finding.outcome} {finding.gate}: {finding.reason}")
    return analysis.verdict


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
