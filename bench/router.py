"""What the router adds to a model call: HTTP, split, slate and an exposure forced to disk, against the call alone, interleaved."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import msgspec
import numpy as np

from ..core.files import write_atomically
from ..core.store import Store
from ..experiment.config import Arm, Experiment, to_toml
from ..runtime.session import SessionSettings, open_session
from ..serve.process import RouterProcess
from .ranker import make_model, make_requests


def run(store: Store, folder: Path, *, requests: int) -> list[str]:
    """Lines of a Markdown table: `requests` pairs of one in-process call and one HTTP request, one connection."""
    make_model("bench-a", 256, store)
    make_model("bench-b", 256 + 8, store)
    arms = (Arm(name="control", model="bench-a", weight=1.0), Arm(name="treatment", model="bench-b", weight=1.0))
    experiment = folder / "experiment.toml"
    write_atomically(experiment, to_toml(Experiment(name="bench", control="control", arms=arms)))
    asked = make_requests(64)
    session = open_session("bench-a", SessionSettings(), store=store)
    feeds = list(asked.feeds(session.signature))
    alone, served = np.empty(requests), np.empty(requests)
    with RouterProcess(experiment, logs=folder / "logs", store=store.root) as router:
        connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
        for number in range(requests):
            row = feeds[number % len(feeds)]
            begun = time.perf_counter()
            session.run(row)
            alone[number] = time.perf_counter() - begun
            body = _body(number, row)
            begun = time.perf_counter()
            connection.request("POST", "/v2/models/bench/infer", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            served[number] = time.perf_counter() - begun
            if response.status != 200:
                raise RuntimeError(f"the router answered {response.status}")
        connection.close()
    lines = [f"{requests} requests, one connection, 1 thread per model, fdatasync before every response", ""]
    lines += ["| | p50 ms | p95 ms | p99 ms |", "|---|---|---|---|"]
    for name, values in (("model alone, in process", alone), ("through the router", served), ("added", served - alone)):
        lines.append(f"| {name} | " + " | ".join(f"{np.quantile(values, q) * 1e3:.3f}" for q in (0.5, 0.95, 0.99)) + " |")
    return lines


def _body(number: int, row: dict[str, np.ndarray]) -> bytes:
    """Request inputs with one row, candidate inputs with one per item."""
    parts = {"user": row["user"][:1], "history": row["history"][:1], "item": row["item"]}
    inputs = [{"name": n, "shape": list(a.shape), "datatype": "INT64", "data": a.reshape(-1).tolist()} for n, a in parts.items()]
    return msgspec.json.encode({"id": f"r{number}", "parameters": {"user_id": str(number)}, "inputs": inputs})
