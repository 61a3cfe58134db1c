"""Results as other rooms write them, with plausible numbers: the article's story and the cases around it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from liftgate.core.artifact import ModelRef
from liftgate.core.estimate import Estimate
from liftgate.core.machine import Machine
from liftgate.core.requests import RequestsRef
from liftgate.core.verdict import Finding, Outcome, judge
from liftgate.experiment.result import Analysis, ArmResult, Effect, SampleRatio
from liftgate.profile.result import Candidate, Comparison, Direction, InstanceLatency, Label, LatencyChange, ModelLatency
from liftgate.quality.result import MetricValue, Quality, QualityChange
from liftgate.reports.result import Report, Story

ROUNDS = 24
NOTHING = Estimate(value=None, low=None, high=None, n=0)
REQUESTS = RequestsRef(source="holdout.parquet", sha256="9f" * 32, requests=1830, users=412, generated=False)
MACHINE = Machine(
    cpu="AMD EPYC 7R13",
    cores=2,
    threads_per_core=1,
    memory_gib=23.4,
    features=("avx2", "fma", "f16c"),
    system="Linux 6.1.0 x86_64",
    fingerprint="3f2a9c01d4e7",
)


def est(value: float, half: float, n: int = ROUNDS) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, n=n)


def ref(name: str, size: int, *lineage: str) -> ModelRef:
    digest = f"{sum(map(ord, name)):04x}" * 16
    return ModelRef(name=name, digest=digest, runtime="onnxruntime", size_bytes=size, lineage=lineage)


CONTROL = ref("v1.0", 6_400_000)
TREATMENT = ref("v1.1", 15_800_000)
INT8 = ref("v1.1-int8", 5_900_000, "dynamic-int8: 6 of 6 MatMul in int8, per channel")
PRUNED = ref("v1.1-int8-pruned", 4_300_000, "prune: kept 70 % of 2 hidden layers", "dynamic-int8: 6 of 6 MatMul in int8, per channel")
P95 = {"v1.0": 150.0, "v1.1": 220.0, "v1.1-int8": 141.0, "v1.1-int8-pruned": 138.5}
NDCG = {"v1.0": 0.3121, "v1.1": 0.3277, "v1.1-int8": 0.3271, "v1.1-int8-pruned": 0.3266}
CASUAL = {"v1.1": 0.982, "v1.1-int8": 0.979, "v1.1-int8-pruned": 0.941}


def model_latency(model: ModelRef, scale: float = 1.0) -> ModelLatency:
    p95 = P95.get(model.name, 160.0) * scale
    return ModelLatency(
        model=model,
        quantiles_ms={"p50": est(p95 * 0.71, p95 * 0.008), "p95": est(p95, p95 * 0.02), "p99": est(p95 * 1.21, p95 * 0.05)},
        samples=4800,
        launches=4,
        rounds=ROUNDS,
        load_ms=(212.0, 208.5, 231.2, 215.1),
        first_request_ms=(p95 * 2.1, p95 * 2.3, p95 * 2.0, p95 * 2.2),
        memory_bytes=(model.size_bytes * 14, model.size_bytes * 15),
    )


def changes_of(model: ModelRef, seed: int) -> tuple[LatencyChange, ...]:
    noise = random.Random(seed)
    ratio = P95.get(model.name, 160.0) / P95["v1.0"]
    found = []
    for quantile, spread in (("p50", 0.01), ("p95", 0.025), ("p99", 0.06)):
        direction: Direction = "slower" if ratio > 1 + spread else "faster" if ratio < 1 - spread else "unclear"
        rounds = tuple(ratio * math.exp(noise.gauss(0.0, spread)) for _ in range(ROUNDS))
        found.append(
            LatencyChange(
                quantile=quantile, ratio=est(ratio, ratio * spread / 2), round_ratios=rounds, direction=direction, detectable=spread
            )
        )
    return tuple(found)


def instance(name: str, models: tuple[ModelRef, ...], *, scale: float = 1.0, label: Label = "measured", note: str = "") -> InstanceLatency:
    return InstanceLatency(
        instance=name,
        label=label,
        note=note,
        threads=1,
        cpus=(1,),
        candidates_per_request=Estimate(value=100.0, low=100.0, high=100.0, n=1830),
        invalid=(),
        measured_s=120.0,
        models=tuple(model_latency(m, scale) for m in models),
        changes={m.name: changes_of(m, i) for i, m in enumerate(models[1:])},
    )


def quality_changes(model: ModelRef) -> tuple[QualityChange, ...]:
    found = []
    for metric, base in (("ndcg@10", NDCG["v1.0"]), ("auc", 0.7412)):
        everyone = NDCG.get(model.name, 0.31) / NDCG["v1.0"]
        shape = {"all": (412, everyone, 0.012), "power": (96, everyone * 1.05, 0.02), "casual": (316, CASUAL.get(model.name, 0.99), 0.024)}
        for segment, (users, ratio, half) in shape.items():
            found.append(
                QualityChange(
                    metric=metric,
                    segment=segment,
                    users=users,
                    control=est(base, 0.011, users),
                    treatment=est(base * ratio, 0.012, users),
                    difference=est(base * (ratio - 1), base * half, users),
                    ratio=est(ratio, half, users),
                )
            )
    return tuple(found)


def quality(model: ModelRef) -> Quality:
    values = (("ndcg@10", NDCG.get(model.name, 0.31), 12), ("auc", 0.7412 * NDCG.get(model.name, 0.31) / NDCG["v1.0"], 31))
    metrics = tuple(
        MetricValue(metric=m, segment="all", users=412, requests=1830, undefined_requests=n, estimate=est(v, 0.011, 412))
        for m, v, n in values
    )
    return Quality(model=model, requests=REQUESTS, metrics=metrics, seed=0)


def candidate(model: ModelRef, *findings: Finding) -> Candidate:
    return Candidate(model=model, quality=quality_changes(model), verdict=judge(findings))


def finding(outcome: Outcome, gate: str, reason: str) -> Finding:
    return Finding(outcome=outcome, gate=gate, reason=reason)


def compare(candidates: tuple[Candidate, ...], instances: tuple[InstanceLatency, ...] | None = None, **changed: object) -> Comparison:
    models = (CONTROL, *(c.model for c in candidates))
    note = "one physical core stands in for a core with two hyper-threads; no AVX-512 here, which m5.large has"
    shown = instances or (instance("local", models), instance("m5.large", models, scale=1.34, label="emulated", note=note))
    base = Comparison(
        control=CONTROL,
        candidates=candidates,
        requests=REQUESTS,
        instances=shown,
        quality=tuple(quality(m) for m in models),
        budget="budget.toml",
        machine=MACHINE,
        tools={"python": "3.11.9", "liftgate": "0.1.0", "onnxruntime": "1.23.2", "torch": "2.13.0"},
        seed=0,
        started_at="2026-03-04T10:12:44Z",
        seconds=214.6,
        command="profile compare v1.0 v1.1 v1.1-int8 --requests holdout.parquet --budget budget.toml --seed 0",
    )
    return msgspec.structs.replace(base, **changed)


@pytest.fixture
def story_comparison() -> Comparison:
    """The article: v1.1 is better for power users and too slow; int8 makes it fast; pruning hurts casual users."""
    slow = "p95 ratio 1.467 [1.448, 1.486] > 1.05 on m5.large (emulated)"
    return compare(
        (
            candidate(
                TREATMENT,
                finding(Outcome.PASS, "size", "15.1 MiB <= 32 MiB"),
                finding(Outcome.FAIL, "latency_p95", slow),
                finding(Outcome.PASS, "ndcg@10", "ratio 1.050 [1.038, 1.062] >= 0.995 for everyone"),
            ),
            candidate(
                INT8,
                finding(Outcome.PASS, "latency_p95", "p95 ratio 0.940 [0.928, 0.952] <= 1.05 on m5.large (emulated)"),
                finding(Outcome.PASS, "ndcg@10", "ratio 1.048 [1.036, 1.060] >= 0.995 for everyone"),
                Finding(
                    outcome=Outcome.UNDECIDED,
                    gate="ndcg@10",
                    level="warn",
                    reason="ratio 0.979 [0.955, 1.003] against 0.97 for casual: about 540 more users needed",
                ),
            ),
            candidate(
                PRUNED,
                finding(Outcome.PASS, "latency_p95", "p95 ratio 0.923 [0.911, 0.935] <= 1.05 on m5.large (emulated)"),
                finding(Outcome.UNDECIDED, "ndcg@10", "ratio 0.941 [0.917, 0.965] against 0.95 for casual: about 310 more users needed"),
            ),
        ),
        notes=("AUC is pooled over each user's candidates.",),
    )


@pytest.fixture
def invalid_comparison() -> Comparison:
    """Measured while something else had the machine."""
    shown = msgspec.structs.replace(instance("local", (CONTROL, INT8)), invalid=("CPU time stolen by the host: 4.2 % > 1 %",))
    bad = finding(Outcome.INVALID, "latency_p95", "measurement on local cannot be trusted: CPU time stolen by the host: 4.2 % > 1 %")
    return compare((candidate(INT8, bad),), (shown,))


@pytest.fixture
def unjudged_comparison() -> Comparison:
    """No budget."""
    return compare((candidate(INT8),), budget=None)


@pytest.fixture
def generated_comparison() -> Comparison:
    """No requests file: made from the signature, so there are no labels and no quality."""
    made = RequestsRef(source="generated", sha256=None, requests=64, users=64, generated=True, note="from the signature, seed 0")
    bare = Candidate(model=INT8, quality=(), verdict=None)
    return compare((bare,), (instance("local", (CONTROL, INT8)),), requests=made, quality=(), budget=None)


@pytest.fixture
def unknown_comparison() -> Comparison:
    """Too little data: bounds, values and memory that nobody knows."""
    known = instance("local", (CONTROL, INT8))
    vague = msgspec.structs.replace(
        known.models[1],
        quantiles_ms={"p50": est(101.0, 2.0), "p95": Estimate(value=141.0, low=None, high=None, n=3), "p99": NOTHING},
        memory_bytes=(),
        load_ms=(),
        first_request_ms=(),
    )
    half = Estimate(value=0.94, low=None, high=1.02, n=3)
    shown = msgspec.structs.replace(
        known,
        candidates_per_request=NOTHING,
        models=(known.models[0], vague),
        changes={
            "v1.1-int8": (LatencyChange(quantile="p95", ratio=half, round_ratios=(0.9, 1.0, 0.92), direction="unclear", detectable=None),)
        },
    )
    lost = tuple(msgspec.structs.replace(q, treatment=NOTHING, difference=NOTHING, ratio=NOTHING) for q in quality_changes(INT8))
    values = msgspec.structs.replace(
        quality(INT8), metrics=tuple(msgspec.structs.replace(m, estimate=NOTHING) for m in quality(INT8).metrics)
    )
    short = finding(Outcome.UNDECIDED, "latency_p99", "p99 unknown against 200 ms on local: about 270 more requests needed")
    judged = Candidate(model=INT8, quality=lost, verdict=judge([short]))
    return compare((judged,), (shown,), quality=(quality(CONTROL), values))


def effect(segment: str, value: float, half: float, users: int, verdict: tuple[Outcome, str]) -> Effect:
    return Effect(
        treatment="treatment",
        segment=segment,
        absolute=est(value * 0.02, half * 0.02, users),
        relative=est(value, half, users),
        p_value=0.031 if abs(value) > half else 0.412,
        design_effect=1.83,
        users_needed=300_136,
        outcome=verdict[0],
        reason=verdict[1],
    )


@pytest.fixture
def analysis() -> Analysis:
    """2.0 % against 1.9 %: the article's numbers, and what they can say."""
    arms = (("control", "v1.0", 20_000, 0.020, 150.0), ("treatment", "v1.1", 19_880, 0.019, 220.0))
    reason = "-5.0 % [-9.8 %, -0.2 %] lies below 0"
    return Analysis(
        experiment="ranker-v1-1",
        salt="2026-03",
        metric="ctr",
        control="control",
        arms=tuple(
            ArmResult(
                arm=arm,
                model=model,
                users=users,
                exposures=users * 3,
                impressions=users * 30,
                clicks=round(users * 30 * rate),
                ctr=est(rate, 0.00035, users),
                latency_p50_ms=p95 * 0.7,
                latency_p95_ms=p95,
            )
            for arm, model, users, rate, p95 in arms
        ),
        sample_ratio=SampleRatio(
            expected={"control": 0.5, "treatment": 0.5},
            observed={"control": 20_000, "treatment": 19_880},
            p_value=0.548,
            threshold=0.001,
            ok=True,
        ),
        effects=(effect("all", -0.05, 0.048, 39_880, (Outcome.FAIL, reason)),),
        segments=(
            effect("power", 0.034, 0.071, 8_100, (Outcome.UNDECIDED, "the interval holds 0: 212,400 more users needed")),
            effect("casual", -0.083, 0.062, 31_780, (Outcome.FAIL, "-8.3 % [-14.5 %, -2.1 %] lies below 0")),
        ),
        verdict=judge([finding(Outcome.FAIL, "ctr", reason)]) or pytest.fail("one finding makes a verdict"),
        first_exposure_at="2026-03-04T10:20:00Z",
        last_exposure_at="2026-03-18T10:20:00Z",
        ignored={"events without exposure": 17, "clicks outside the list": 0},
        command="liftgate experiment analyse experiment.toml --logs logs",
        notes=("Clicks come from replayed users.",),
    )


@pytest.fixture
def story() -> Story:
    return Story(
        title="Did fine-tuning on power users earn its place?",
        paragraphs=("v1.1 was fine-tuned on recent data of power users. Offline it looks 5 % better; live it is slower and loses clicks.",),
        data="MovieLens ml-latest-small: 610 users, 9,724 films.",
    )


@pytest.fixture
def full_report(story_comparison: Comparison, analysis: Analysis, story: Story) -> Report:
    return Report(comparison=story_comparison, analysis=analysis, story=story)


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Results as files: `run_folder(comparison=…)` makes a folder with `comparison.json`."""

    def make(**parts: Comparison | Analysis | Story) -> Path:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        for name, value in parts.items():
            (folder / f"{name}.json").write_bytes(msgspec.json.encode(value))
        return folder

    return make


def samples_of(comparison: Comparison, each: int = 400) -> pa.Table:
    """Log-normal service times around every model's median, as `samples.parquet` holds them."""
    noise = random.Random(7)
    rows: dict[str, list[object]] = {"instance": [], "model": [], "launch": [], "round": [], "ns": []}
    for shown in comparison.instances:
        for model in shown.models:
            middle = (model.quantiles_ms["p50"].value or 100.0) * 1e6
            rows["instance"] += [shown.instance] * each
            rows["model"] += [model.model.name] * each
            rows["launch"] += [i % 4 for i in range(each)]
            rows["round"] += [i % ROUNDS for i in range(each)]
            rows["ns"] += [round(middle * math.exp(noise.gauss(0.0, 0.2))) for _ in range(each)]
    return pa.table(rows)


@pytest.fixture
def sampled_folder(run_folder: Callable[..., Path], story_comparison: Comparison, analysis: Analysis, story: Story) -> Path:
    """A whole run: comparison, analysis, story and raw samples."""
    folder = run_folder(comparison=story_comparison, analysis=analysis, story=story)
    pq.write_table(samples_of(story_comparison), folder / "samples.parquet")
    return folder
