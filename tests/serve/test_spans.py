"""What a router records about its requests when it is asked to."""

from __future__ import annotations

import http.client
import json
from itertools import pairwise
from pathlib import Path

from liftgate.core.spans import FEATURES, INFER, PARSE, POSTPROCESS, QUEUE, RECORD, REQUEST, ROUTE, SpanFile, read_spans
from liftgate.core.store import Store
from liftgate.serve.process import RouterProcess


def ask(router: RouterProcess, body: dict[str, object]) -> int:
    connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
    try:
        connection.request("POST", "/v2/models/demo/infer", json.dumps(body).encode())
        return connection.getresponse().status
    finally:
        connection.close()


def request(number: int) -> dict[str, object]:
    inputs = [
        {"name": "user", "shape": [1], "datatype": "INT64", "data": [3]},
        {"name": "item", "shape": [4], "datatype": "INT64", "data": [5, 9, 1, 7]},
    ]
    return {"id": f"q{number}", "parameters": {"user_id": f"u{number}"}, "inputs": inputs}


def recorded(folder: Path) -> SpanFile:
    (file,) = folder.glob("spans-*.json")
    return read_spans(file)


def test_a_router_writes_where_its_requests_spent_their_time(experiment_file: Path, store: Store, tmp_path: Path) -> None:
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root, trace=tmp_path / "trace") as router:
        assert [ask(router, request(number)) for number in range(5)] == [200] * 5
        assert ask(router, {"inputs": []}) == 400
        pid = router.pid
    found = recorded(tmp_path / "trace")
    assert (found.seen, found.pid) == (6, pid)
    *good, bad = found.traces
    for number, trace in enumerate(good):
        assert [s.name for s in trace.spans] == [REQUEST, PARSE, FEATURES, ROUTE, QUEUE, INFER, POSTPROCESS, RECORD]
        whole, *parts = trace.spans
        edges = [(s.start_ns, s.end_ns) for s in parts]
        assert whole.start_ns == edges[0][0]
        assert whole.end_ns >= edges[-1][1]
        assert all(end == start for (_, end), (start, _) in pairwise(edges))
        assert trace.attributes["request_id"] == f"q{number}"
        assert trace.attributes["model"] in {"high", "low"}
    assert bad.attributes == {"error": "InputError"}


def test_a_router_that_is_not_asked_writes_nothing(experiment_file: Path, store: Store, tmp_path: Path) -> None:
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root) as router:
        assert ask(router, request(0)) == 200
    assert not list(tmp_path.rglob("spans-*.json"))
