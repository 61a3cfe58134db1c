"""`python -m liftgate.bench.optimize`: trained public rankers, every peer and every shipped recipe, judged and timed side by side."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from ...core.errors import InputError, RunFailed
from ...core.machine import this_machine, tool_versions
from .building import build
from .environment import CHECKOUT, REQUIREMENTS
from .folder import CANDIDATES, CaseFolder
from .judging import Judge
from .process import interpreter, one_thread
from .result import CaseResult, Outcome, Result
from .roofline import need_of, peaks
from .table import table
from .timing import measured_core, time_case
from .variants import REFERENCE, USUAL, VARIANTS, Built, Variant
from .wire import decode, encode

FOLDER = CHECKOUT / ".bench" / "optimize"
CASES = {
    "deepfm": "deepctr-torch",
    "din": "deepctr-torch",
    "mmoe": "deepctr-torch",
    "dssm": "torch-rechub",
    "gru4rec": "torch-rechub",
    "sasrec": "torch-rechub",
    "demo": "liftgate",
}
_PEERS = ("olive-ai", "nncf", "openvino")
_QUICK_REQUESTS = 300


def run(arguments: Sequence[str] = ()) -> list[str]:
    """Run and give the lines of docs/benchmarks.md; writes every sample to `--json`."""
    wanted = _wanted(arguments)
    if wanted.show is not None:
        return table(decode(wanted.show.read_bytes(), Result))
    start = time.monotonic()
    _prepare(wanted.cases, wanted.data)
    core = measured_core()
    result = Result(
        machine=this_machine(),
        core=core,
        tools={**tool_versions(), "neural-compressor": version("neural-compressor"), **_peers()},
        command=" ".join(["python -m liftgate.bench.optimize", *arguments]) if arguments else "make bench PARTS=optimize",
        seconds=0.0,
        peaks=peaks(core, FOLDER / "inductor"),
        cases=(),
    )
    wanted.json.parent.mkdir(parents=True, exist_ok=True)
    for name in wanted.cases:
        cases = (*result.cases, _case(name, wanted))
        # Peaks are the best of several moments: something else may have had the memory in one of them.
        best = result.peaks.best(peaks(core, FOLDER / "inductor"))
        result = msgspec.structs.replace(result, cases=cases, peaks=best, seconds=time.monotonic() - start)
        wanted.json.write_bytes(encode(result))
    return table(result)


def _peers() -> dict[str, str]:
    """Versions of the peers' packages."""
    pinned = dict(line.split("==") for line in REQUIREMENTS.read_text().splitlines() if "==" in line)
    return {name: pinned[name] for name in _PEERS}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: `most` requests at most are judged (None: all), `seconds` measured per case and number of candidates."""

    cases: list[str]
    variants: list[str]
    seconds: float
    most: int | None
    data: Path
    json: Path
    show: Path | None


def _wanted(arguments: Sequence[str]) -> Wanted:
    parser = argparse.ArgumentParser(prog="python -m liftgate.bench.optimize", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(USUAL))
    parser.add_argument("--seconds", type=float, default=30.0, help="time to measure each case with each number of candidates")
    parser.add_argument("--quick", action="store_true", help="few requests and seconds, for development: says little about quality")
    parser.add_argument("--data", type=Path, default=os.environ.get("LIFTGATE_DATA"), help="folder of ml-latest-small (or LIFTGATE_DATA)")
    parser.add_argument("--json", type=Path, default=FOLDER / "result.json", help="where every sample goes")
    parser.add_argument("--show", type=Path, metavar="JSON", help="only print the tables of an earlier run")
    given = parser.parse_args(list(arguments))
    if given.data is None and given.show is None:
        fix = "give the folder of ml-latest-small: LIFTGATE_DATA=path make bench PARTS=optimize"
        raise InputError.mismatch("bench optimize", expected="MovieLens ratings", found="no LIFTGATE_DATA", fix=fix)
    return Wanted(
        cases=given.cases,
        # Everything is judged and timed against the reference.
        variants=sorted({REFERENCE, *given.variants}, key=lambda name: (name != REFERENCE, list(VARIANTS).index(name))),
        seconds=min(given.seconds, 4.0) if given.quick else given.seconds,
        most=_QUICK_REQUESTS if given.quick else None,
        data=given.data,
        json=given.json,
        show=given.show,
    )


def _prepare(cases: list[str], data: Path) -> None:
    """Train and export what is not there yet, in the zoo's environment."""
    command = [str(interpreter("zoo")), "-m", "liftgate.bench.optimize.prepare", "--data", str(data), "--folder", str(FOLDER)]
    _say("training and exporting what is not there yet")
    subprocess.run([*command, "--cases", *cases], check=True, stdout=sys.stderr, env=one_thread(FOLDER / "inductor"))


def _case(name: str, wanted: Wanted) -> CaseResult:
    """Build, judge and time every variant of a case."""
    place = CaseFolder(FOLDER, name)
    outcomes, ready = _judged(place, wanted)
    _say(f"{name}: timing {len(ready)} variants")
    times, failures = time_case(place, ready, seconds=wanted.seconds)
    for variant in ready:
        mine = {count: by_variant[variant] for count, by_variant in times.items() if variant in by_variant}
        outcomes[variant] = msgspec.structs.replace(outcomes[variant], times=mine, failure=failures.get(variant, ""))
    trained = place.trained
    if trained is None:
        raise AssertionError("prepared cases are trained")
    return CaseResult(name=name, package=CASES[name], ndcg=trained.ndcg, popularity_ndcg=trained.popularity_ndcg, outcomes=outcomes)


def _judged(place: CaseFolder, wanted: Wanted) -> tuple[dict[str, Outcome], dict[str, tuple[Variant, Built]]]:
    """What became of every variant so far, in the order wanted, and those that can be timed."""
    outcomes: dict[str, Outcome] = {}
    ready: dict[str, tuple[Variant, Built]] = {}
    judge: Judge | None = None
    for variant in (VARIANTS[one] for one in wanted.variants):
        _say(f"{place.name}: {variant.name}")
        built = build(place, variant)
        if built.path is None:
            outcomes[variant.name] = Outcome(failure=built.failure, build_s=built.seconds)
            continue
        try:
            judge = judge or Judge(place, variant, built, most=wanted.most)
            kept, order = judge.judge(variant, built)
        except RunFailed as error:
            outcomes[variant.name] = Outcome(failure=error.problem, build_s=built.seconds)
            continue
        needs = {count: need_of(built.path, count) for count in CANDIDATES} if variant.ours else {}
        outcomes[variant.name] = Outcome(settings=built.settings, build_s=built.seconds, kept=kept, order=order, needs=needs)
        ready[variant.name] = (variant, built)
    return outcomes, ready


def _say(what: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {what}", file=sys.stderr, flush=True)
