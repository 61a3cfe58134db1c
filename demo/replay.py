"""Replaying held-out users against a running router over HTTP: ask, look at the slate, click."""

from __future__ import annotations

import http.client
import queue
import threading
import time
from collections.abc import Iterator
from itertools import groupby

import msgspec
import numpy as np

from ..core.errors import RunFailed
from ..core.progress import Progress, silent
from ..core.requests import Requests
from .clicks import ClickModel

_CONCURRENCY = 4
_ATTEMPTS = 5
_TIMEOUT_S = 30.0


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One request of one user: the body to send and what a click depends on."""

    request_id: str
    unit: str
    body: bytes
    items: list[int]
    liked: set[int]


class Replayed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a replay did."""

    users: int
    requests: int
    clicks: int
    seconds: float


def visits(requests: Requests) -> Iterator[Visit]:
    """Requests as Open Inference Protocol bodies: request inputs with one row, candidate inputs with one row per item."""
    table = requests.table
    labels = requests.labels or []
    segments = requests.segments or []
    columns = (requests.request_ids, requests.user_ids, segments, table["user"], table["history"], table["item"], labels)
    for request_id, unit, segment, user, history, item, label in zip(*columns, strict=True):
        items = item.as_py()
        inputs = [
            {"name": "user", "shape": [1], "datatype": "INT64", "data": [user.as_py()]},
            {"name": "history", "shape": [1, len(history)], "datatype": "INT64", "data": history.as_py()},
            {"name": "item", "shape": [len(items)], "datatype": "INT64", "data": items},
        ]
        parameters = {"user_id": unit, "segment": segment}
        body = {"id": request_id, "parameters": parameters, "inputs": inputs, "outputs": [{"name": "slate"}]}
        liked = {i for i, value in zip(items, label, strict=True) if value > 0}
        yield Visit(request_id=request_id, unit=unit, body=msgspec.json.encode(body), items=items, liked=liked)


def replay(
    requests: Requests,
    model: ClickModel,
    *,
    host: str,
    port: int,
    experiment: str,
    seed: int,
    progress: Progress = silent,
) -> Replayed:
    """Send every request to the router at `host:port` and its clicks after it; one user's requests stay in order.

    Users come in random order (seeded), `_CONCURRENCY` at a time. Raises RunFailed when the router refuses a request or is gone.
    """
    begun = time.monotonic()
    by_user = [list(group) for _, group in groupby(visits(requests), key=lambda visit: visit.unit)]
    waiting: queue.SimpleQueue[list[Visit]] = queue.SimpleQueue()
    for place in np.random.default_rng(seed).permutation(len(by_user)):
        waiting.put(by_user[place])
    done: queue.SimpleQueue[int | RunFailed] = queue.SimpleQueue()
    stop = threading.Event()
    clients = [_Client(host, port, experiment, model) for _ in range(_CONCURRENCY)]
    workers = [threading.Thread(target=_work, args=(client, waiting, done, stop), daemon=True) for client in clients]
    for worker in workers:
        worker.start()
    clicks = 0
    try:
        for number in range(len(requests)):
            found = done.get()
            if isinstance(found, RunFailed):
                raise found
            clicks += found
            progress("replaying users", number + 1, len(requests))
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    return Replayed(users=len(by_user), requests=len(requests), clicks=clicks, seconds=time.monotonic() - begun)


def _work(
    client: _Client, waiting: queue.SimpleQueue[list[Visit]], done: queue.SimpleQueue[int | RunFailed], stop: threading.Event
) -> None:
    """One user after another until nobody is waiting; an error is handed over, for the replay to raise."""
    try:
        while not stop.is_set():
            for visit in waiting.get_nowait():
                done.put(client.visit(visit))
    except queue.Empty:
        pass
    except RunFailed as error:
        done.put(error)
    except (StopIteration, LookupError, TypeError, msgspec.DecodeError) as error:
        done.put(RunFailed("router", f"gave an answer without a usable slate ({type(error).__name__}: {error})"))
    finally:
        client.close()


class _Client:
    """One connection to the router, kept open."""

    def __init__(self, host: str, port: int, experiment: str, model: ClickModel) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self._path = f"/v2/models/{experiment}/infer"
        self._model = model

    def close(self) -> None:
        self._connection.close()

    def visit(self, visit: Visit) -> int:
        """Ask for a slate and send its clicks; returns their number."""
        answer = self._post(self._path, visit.body)
        slate = next(output["data"] for output in msgspec.json.decode(answer)["outputs"] if output["name"] == "slate")
        shown = [visit.items[index] for index in slate]
        positions = self._model.clicked(visit.request_id, shown, visit.liked)
        if positions:
            events = [
                {"kind": "click", "request_id": visit.request_id, "unit": visit.unit, "item": shown[p], "position": p} for p in positions
            ]
            self._post("/v1/events", msgspec.json.encode(events))
        return len(positions)

    def _post(self, path: str, body: bytes) -> bytes:
        """The answer's body. A router that says it is overloaded (503) is asked again a little later."""
        where = f"router: POST {path}"
        for attempt in range(_ATTEMPTS):
            try:
                self._connection.request("POST", path, body, {"content-type": "application/json"})
                response = self._connection.getresponse()
                answer = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise RunFailed(where, f"no answer ({type(error).__name__}: {error})") from None
            if response.status < 300:
                return answer
            if response.status != 503:
                break
            time.sleep(0.05 * 2**attempt)
        raise RunFailed(where, f"status {response.status}: {answer[:300].decode(errors='replace')}")
