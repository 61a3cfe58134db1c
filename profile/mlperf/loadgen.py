"""MLPerf LoadGen driven from Python, and what it leaves in its logs. The only module that imports it.

LoadGen calls back on the thread that started it and, in Server, only when a request is due; answering inside the callback makes that thread
the one server of a queue, and needs no second thread that would compete for the interpreter. Misuse aborts the process (LoadGen is C++), so
this belongs into a worker. Its log of the run is `mlperf_log_detail.txt`, a line of JSON per fact; the time of every request is only in its
trace, which is not JSON as a whole (keys are quoted twice) but has one event per line.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.errors import InputError, RunFailed

Scenario = Literal["SingleStream", "Server"]
Feeds = Mapping[str, np.ndarray]
DETAIL_FILE, TRACE_FILE = "mlperf_log_detail.txt", "mlperf_log_trace.json"
_PREFIX = ":::MLLOG "
_SAMPLE = re.compile(
    r'"name":"Sample","cat":"default","ph":"b".*"ts":(?P<ts>[0-9.]+),.*"sample_idx":(?P<index>\d+),'
    r'"issue_start_ns":(?P<issue>\d+),"complete_ns":(?P<complete>\d+)'
)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One run: Server when there is a rate, SingleStream without; `percentile` (0 to 1) is judged by `target_ns`."""

    rate_per_s: float | None
    target_ns: int
    percentile: float
    seed: int


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Every request of a run in the order it was asked, int64 `[requests]`; fields as in protocol.LoadgenDone."""

    order: npt.NDArray[np.int64]
    due_ns: npt.NDArray[np.int64]
    issue_ns: npt.NDArray[np.int64]
    latency_ns: npt.NDArray[np.int64]
    service_ns: npt.NDArray[np.int64]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What LoadGen itself says of a run: VALID or why not, its percentiles by name (ns), and its early-stopping bound.

    `early_stopping_ns` is what it is 99 % sure the target percentile is at most; only SingleStream has it, and only with enough queries.
    """

    valid: bool
    reasons: tuple[str, ...]
    queries: int
    percentiles_ns: dict[str, int]
    early_stopping: str
    early_stopping_ns: int | None


class _Fact(msgspec.Struct, frozen=True):
    """A line of the detail log; the rest of it is where in LoadGen it came from."""

    key: str
    value: msgspec.Raw


def require_loadgen() -> str:
    """Its version; raises InputError when it is not installed."""
    if find_spec("mlperf_loadgen") is None:
        expected = "MLPerf LoadGen (package mlcommons-loadgen)"
        raise InputError.mismatch("--mlperf", expected=expected, found="no such package", fix="pip install 'liftgate[mlperf]'")
    return metadata.version("mlcommons-loadgen")


def ask(run: Callable[[Feeds], object], feeds: Sequence[Feeds], settings: Settings, folder: Path) -> Asked:
    """Have LoadGen ask each of `feeds` once, in an order and at times that follow from the seed alone, and log to `folder`.

    Raises RunFailed when its trace does not tell of every request.
    """
    import mlperf_loadgen as lg  # noqa: PLC0415 - an extra

    service = np.zeros(len(feeds), dtype=np.int64)
    clock, complete, response = time.perf_counter_ns, lg.QuerySamplesComplete, lg.QuerySampleResponse

    def issue(samples: Sequence[lg.QuerySample]) -> None:
        for sample in samples:
            feed = feeds[sample.index]
            begun = clock()
            run(feed)
            service[sample.index] = clock() - begun
            complete([response(sample.id, 0, 0)])

    ours = _threads()
    sut = lg.ConstructSUT(issue, lambda: None)
    # Requests are "loaded" when LoadGen has started what it needs and nothing is timed yet.
    library = lg.ConstructQSL(len(feeds), len(feeds), lambda _: let_others_first(_threads() - ours), lambda _: None)
    try:
        lg.StartTestWithLogSettings(sut, library, _test_settings(settings, len(feeds)), _log_settings(folder))
    finally:
        lg.DestroyQSL(library)
        lg.DestroySUT(sut)
    return read_trace(folder / TRACE_FILE, service)


def _threads() -> set[int]:
    """Kernel ids of this process's threads; empty where the kernel does not tell."""
    try:
        return {int(thread.name) for thread in Path("/proc/self/task").iterdir()}
    except OSError:
        return set()


def let_others_first(threads: set[int]) -> None:
    """Have these threads (kernel ids), LoadGen's own, run only while nothing else wants the CPU.

    Its logger wakes every 10 ms whatever its settings say and works for about 0.2 ms: on a measured CPU that slows a request every 10 ms,
    which is more than 1 % of them for a model of less than 1 ms. On another CPU it would still take caches, or half of a core.
    """
    for thread in threads:
        with suppress(OSError):  # ended meanwhile
            os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def _test_settings(settings: Settings, queries: int) -> object:
    import mlperf_loadgen as lg  # noqa: PLC0415

    wanted = lg.TestSettings()
    wanted.mode = lg.TestMode.PerformanceOnly
    # Every request once: its defaults are ten seconds and drawing with replacement.
    wanted.min_query_count, wanted.min_duration_ms = queries, 0
    wanted.performance_issue_unique = True
    wanted.qsl_rng_seed = wanted.sample_index_rng_seed = wanted.schedule_rng_seed = settings.seed
    if settings.rate_per_s is None:
        wanted.scenario = lg.TestScenario.SingleStream
        wanted.single_stream_target_latency_percentile = settings.percentile
        wanted.max_query_count = queries
    else:
        wanted.scenario = lg.TestScenario.Server
        wanted.server_target_qps = settings.rate_per_s
        wanted.server_target_latency_ns = settings.target_ns
        wanted.server_target_latency_percentile = settings.percentile
    return wanted


def _log_settings(folder: Path) -> object:
    import mlperf_loadgen as lg  # noqa: PLC0415

    output = lg.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = str(folder), False
    wanted = lg.LogSettings()
    wanted.log_output, wanted.enable_trace = output, True
    wanted.log_mode = lg.LoggingMode.AsyncPoll
    return wanted


def read_trace(path: Path, service_ns: npt.NDArray[np.int64]) -> Asked:
    """Every request in LoadGen's trace, next to what `service_ns` says of it by its index."""
    found = [match for line in path.read_text(encoding="utf-8").splitlines() if (match := _SAMPLE.search(line))]
    order = np.array([int(match["index"]) for match in found], dtype=np.int64)
    if sorted(order.tolist()) != list(range(len(service_ns))):
        raise RunFailed("MLPerf LoadGen", f"its trace tells of {len(order)} requests, {len(service_ns)} were to be asked once each")
    due = np.rint(np.array([float(match["ts"]) for match in found]) * 1e3).astype(np.int64)
    return Asked(
        order=order,
        due_ns=due - due[0],
        issue_ns=np.array([int(match["issue"]) for match in found], dtype=np.int64),
        latency_ns=np.array([int(match["complete"]) for match in found], dtype=np.int64),
        service_ns=service_ns[order],
    )


def read_judgement(path: Path) -> Judgement:
    """LoadGen's verdict from its detail log; raises RunFailed for a log without one, as an aborted run leaves."""
    facts: dict[str, msgspec.Raw] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(_PREFIX):
            fact = msgspec.json.decode(line.removeprefix(_PREFIX), type=_Fact)
            facts[fact.key] = fact.value
    if "result_validity" not in facts:
        raise RunFailed("MLPerf LoadGen", f"{path.name} has no verdict")

    def text(key: str) -> str:
        return msgspec.json.decode(facts[key], type=str).strip() if key in facts else ""

    def count(key: str) -> int:
        return msgspec.json.decode(facts[key], type=int) if key in facts else 0

    percentile = re.compile(r"result_(\d+)\.(\d+)_percentile_latency_ns")
    named = {f"p{float(f'{m[1]}.{m[2]}'):g}": count(m[0]) for key in facts if (m := percentile.fullmatch(key))}
    unmet = {
        "result_perf_constraints_met": "the target latency was not met",
        "result_min_queries_met": "too few queries",
        "result_min_duration_met": "too short",
        "early_stopping_met": "too few queries for its early-stopping criterion",
    }
    reasons = tuple(said for key, said in unmet.items() if key in facts and not msgspec.json.decode(facts[key], type=bool))
    return Judgement(
        valid=text("result_validity") == "VALID",
        reasons=reasons,
        queries=count("result_query_count"),
        percentiles_ns=named,
        early_stopping=_sentences(text("early_stopping_result")),
        early_stopping_ns=count("early_stopping_latency_ss") or None,
    )


def _sentences(listed: str) -> str:
    """LoadGen's list of ` * ` points as sentences; it says some of them twice."""
    points = (" ".join(point.split()).rstrip(".") for point in listed.split("*"))
    return "; ".join(dict.fromkeys(point for point in points if point))
