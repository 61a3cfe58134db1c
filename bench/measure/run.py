"""`make bench PARTS=measure`: everything that says how right measurements and gates are; parts can be named in LIFTGATE_BENCH_MEASURE."""

from __future__ import annotations

import os
from pathlib import Path

from ...core.store import Store
from ..environment import CHECKOUT
from . import cases, coverage, overhead, real_noise
from .ranker import model_and_requests

LOG = CHECKOUT / ".bench" / "measure" / "answers.jsonl"
REPEATS = {"equal, neighbour": 200}
_USUAL_REPEATS = 40
PARTS = ("noise", "coverage", "overhead", *(case.name for case in cases.CASES))


def run(store: Store) -> list[str]:
    """Markdown of the parts in LIFTGATE_BENCH_MEASURE (separated by semicolons), of all without it."""
    named = [part.strip() for part in os.environ.get("LIFTGATE_BENCH_MEASURE", ";".join(PARTS)).split(";")]
    unknown = sorted(set(named) - set(PARTS))
    if unknown:
        raise SystemExit(f"unknown parts of measure: {', '.join(unknown)}; known: {'; '.join(PARTS)}")
    model, requests = model_and_requests(store)
    LOG.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    if "overhead" in named:
        lines += ["### What measuring costs", "", *overhead.run(model, requests, store), ""]
    if "noise" in named:
        lines += ["### The decisions alone, on real noise", "", *_real_noise()]
    if "coverage" in named:
        lines += ["### Coverage of 95 % intervals", "", *coverage.rates(1000), "", *coverage.false_decisions(500), ""]
    chosen = [case for case in cases.CASES if case.name in named]
    if chosen:
        lines += ["### Gates", "", *cases.HEADER]
    for case in chosen:
        repeats = REPEATS.get(case.name, _USUAL_REPEATS)
        lines += cases.run(case, repeats, model, requests, store=store, log=LOG)
    return lines


def _real_noise() -> list[str]:
    data = os.environ.get("LIFTGATE_DATA")
    if data is None or not (Path(data) / real_noise.FOLDER).is_dir():
        return [f"left out: LIFTGATE_DATA names no folder with {real_noise.FOLDER}", ""]
    return real_noise.run(Path(data))
