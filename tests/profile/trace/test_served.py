"""A router that serves, looked at from outside."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError
from liftgate.core.spans import INFER, REQUEST, Span, SpanFile, Trace
from liftgate.core.store import Store
from liftgate.profile.trace.chrome import Complete, flaws, read_chrome
from liftgate.profile.trace.flame import flame_served
from liftgate.profile.trace.sampler import check_traceable
from liftgate.profile.trace.served import find_spans, parts, trace_served
from liftgate.serve.process import RouterProcess

MakeTower = Callable[..., ModelArtifact]
EXPERIMENT = """
version = 1
name = "demo"
control = "control"
slate = 3
arms = [{ name = "control", model = "v1.0", weight = 50 }, { name = "treatment", model = "v1.1", weight = 50 }]
"""


@contextmanager
def traffic(router: RouterProcess) -> Iterator[None]:
    """Requests one after another until the block ends."""
    over = threading.Event()
    inputs = [
        {"name": "user", "shape": [1], "datatype": "INT64", "data": [3]},
        {"name": "item", "shape": [50], "datatype": "INT64", "data": list(range(50))},
    ]

    def ask() -> None:
        connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
        for number in range(100_000):
            if over.is_set():
                break
            body = {"id": f"q{number}", "parameters": {"user_id": f"u{number % 9}"}, "inputs": inputs}
            connection.request("POST", "/v2/models/demo/infer", json.dumps(body).encode())
            connection.getresponse().read()
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_router_is_sampled_and_traced_while_it_serves(make_tower: MakeTower, store: Store, tmp_path: Path) -> None:
    make_tower("v1.0")
    make_tower("v1.1", slowed=True)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    spans = tmp_path / "spans"
    with RouterProcess(tmp_path / "experiment.toml", logs=tmp_path / "logs", store=store.root, trace=spans) as router:
        try:
            check_traceable(router.pid)
        except InputError as error:
            pytest.skip(str(error))
        with traffic(router):
            stacks = flame_served(router.pid, tmp_path / "f.txt", seconds=1, native=False)
            found = trace_served(tmp_path / "t.json", pid=router.pid, spans=spans, seconds=1, native=False)
        assert found.pid == router.pid
    assert stacks.samples > 0
    assert "serve/run.py" in (tmp_path / "f.txt").read_text()
    read = read_chrome(tmp_path / "t.json")
    assert flaws(read) == []
    kinds = {e.cat for e in read.traceEvents if isinstance(e, Complete)}
    assert kinds == {"span", "stack"}
    assert {p.name for p in found.parts} >= {REQUEST, INFER}
    assert found.sampled > 0
    alone = trace_served(tmp_path / "alone.json", spans=spans)
    assert alone.seen >= found.seen
    assert {e.cat for e in read_chrome(tmp_path / "alone.json").traceEvents if isinstance(e, Complete)} == {"span"}


def request(kept: str, ms: int, start: int) -> Trace:
    whole = Span(REQUEST, start, start + ms * 10**6)
    return Trace(kept=kept, attributes={}, spans=(whole, Span(INFER, start, start + ms * 500_000)))  # type: ignore[arg-type]  # one of three words


def test_medians_are_of_the_sample_and_the_tail_is_of_the_slow_ones() -> None:
    kept = [request("sampled", 1, 0), request("sampled", 3, 10**9), request("both", 5, 2 * 10**9), request("slow", 15, 3 * 10**9)]
    file = SpanFile(process="serve", pid=5, seen=40, sample=0.1, unix_offset_ns=0, traces=tuple(kept))
    whole, infer = parts(file)
    assert (whole.name, whole.quartiles_ms, whole.slow_ms) == (REQUEST, (2.0, 3.0, 4.0), 10.0)
    assert (infer.name, infer.quartiles_ms, infer.slow_ms) == (INFER, (1.0, 1.5, 2.0), 5.0)


def test_the_spans_of_a_process_are_found_in_a_folder(tmp_path: Path) -> None:
    for pid in (7, 8):
        (tmp_path / f"spans-{pid}.json").write_text("{}")
    assert find_spans(tmp_path, 8) == tmp_path / "spans-8.json"
    with pytest.raises(InputError, match=r"expected one file of spans, found spans-7\.json, spans-8\.json"):
        find_spans(tmp_path, None)
    with pytest.raises(InputError, match=r"expected spans-9\.json, found spans-7\.json, spans-8\.json"):
        find_spans(tmp_path, 9)
