from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from liftgate.core.artifact import ModelRef
from liftgate.core.errors import InputError
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from liftgate.experiment.assignment import assign
from liftgate.experiment.config import Arm, Experiment, Serving
from liftgate.experiment.records import Exposure
from liftgate.serve.app import App
from liftgate.serve.arms import LoadedArm, load_arms
from liftgate.serve.journal import Journal
from liftgate.serve.router import Router

SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request"),
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)
EXPERIMENT = Experiment(
    name="x",
    control="old",
    slate=2,
    item="item",
    arms=(Arm(name="old", model="v1.0", weight=1), Arm(name="new", model="v1.1", weight=1)),
    serving=Serving(concurrency=1, queue=1, timeout="50 ms", max_body="4 KiB"),
)
OLD, NEW = (next(u for u in map(str, range(99)) if assign(EXPERIMENT, u).arm == arm) for arm in ("old", "new"))
Scores = Callable[[np.ndarray], np.ndarray]


class FakeSession:
    """A second implementation of the Session protocol: scores by a Python function."""

    def __init__(self, name: str, scores: Scores) -> None:
        self.ref = ModelRef(name=name, digest=f"digest-{name}", runtime="onnxruntime", size_bytes=0)
        self.signature = SIGNATURE
        self._scores = scores

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"score": self._scores(feeds["item"]).astype(np.float32)}


class Scope:
    proto = "http"

    def __init__(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        self.method, self.path, self.headers = method, path, headers


class Exchange:
    def __init__(self, body: bytes) -> None:
        self._body = body
        self.status = 0
        self.answer = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), 1000):
            yield self._body[start : start + 1000]

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.answer = status, body


class Bench:
    """A router over fake sessions, spoken to as Granian would."""

    def __init__(self, logs: Path, *, old: Scores = np.negative, new: Scores = np.positive, experiment: Experiment = EXPERIMENT) -> None:
        loop = asyncio.get_running_loop()
        sessions = {"old": FakeSession("v1.0", old), "new": FakeSession("v1.1", new)}
        arms = {a.name: LoadedArm(a, a.model, sessions[a.name], experiment.serving, shareable=True) for a in experiment.arms}
        self.logs = logs
        self.exposures_log = Journal(logs / "exposures.jsonl", loop)
        self.router = Router(experiment, arms, self.exposures_log, Journal(logs / "events.jsonl", loop))
        self.router.ready = True
        self._app = App(self.router)

    async def call(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, object]]:
        exchange = Exchange(body)
        await self._app.__rsgi__(Scope(method, path, headers or {}), exchange)
        return exchange.status, json.loads(exchange.answer)

    async def infer(self, user: str | None, *, path: str = "/v2/models/x/infer", **changes: object) -> tuple[int, dict[str, object]]:
        return await self.call("POST", path, request(user, **changes))

    def exposures(self) -> list[Exposure]:
        return [msgspec.json.decode(line, type=Exposure) for line in (self.logs / "exposures.jsonl").read_bytes().splitlines()]


def request(user: str | None, **changes: object) -> bytes:
    parameters = {} if user is None else {"user_id": user}
    inputs = [
        {"name": "user", "shape": [1], "datatype": "INT64", "data": [1]},
        {"name": "item", "shape": [3], "datatype": "INT64", "data": [7, 9, 8]},
    ]
    return json.dumps({"id": "r1", "parameters": parameters, "inputs": inputs, **changes}).encode()


def raising(_: np.ndarray) -> np.ndarray:
    raise RuntimeError("kernel exploded\nstack")


def test_each_user_gets_the_arm_of_the_assignment_and_the_record_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        for user, version, slate in ((OLD, "v1.0", [0, 2]), (NEW, "v1.1", [1, 2])):
            status, answer = await bench.infer(user)
            assert (status, answer["model_version"]) == (200, version)
            assert answer["outputs"][1]["data"] == slate  # type: ignore[index]
        bench.router.close()
        first, second = bench.exposures()
        assert (first.assigned_arm, first.served_arm, first.reason, first.digest) == ("old", "old", "assigned", "digest-v1.0")
        assert [(s.position, s.index, s.item, s.score) for s in second.slate] == [(0, 1, 9, 9.0), (1, 2, 8, 8.0)]
        assert second.candidates == 3

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("new", "detail"),
    [
        (raising, "new: RuntimeError: kernel exploded"),
        (
            lambda items: np.full(len(items), np.nan),
            "new: InputError: model v1.1: output 'score': expected finite scores, found 3 of 3 NaN",
        ),
        (lambda items: np.zeros(len(items) + 1), "new: InputError: model v1.1: output 'score': expected 3 scores, found 4"),
    ],
    ids=["raises", "NaN", "another number of scores"],
)
def test_a_treatment_that_fails_is_answered_by_the_control_and_stays_in_its_arm(tmp_path: Path, new: Scores, detail: str) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, new=new)
        status, answer = await bench.infer(NEW)
        bench.router.close()
        assert (status, answer["model_version"]) == (200, "v1.0")
        (exposure,) = bench.exposures()
        assert (exposure.assigned_arm, exposure.served_arm, exposure.reason) == ("new", "old", "fallback")
        assert exposure.detail.startswith(detail)

    asyncio.run(scenario())


def test_a_treatment_that_hangs_neither_delays_its_users_nor_starves_the_control(tmp_path: Path) -> None:
    async def scenario() -> None:
        release = threading.Event()

        def hang(items: np.ndarray) -> np.ndarray:
            release.wait(30)
            return items

        bench = Bench(tmp_path, new=hang)
        for request_id in ("r1", "r2", "r3"):
            status, _ = await bench.infer(NEW, id=request_id)
            assert status == 200
        assert (await bench.infer(OLD))[0] == 200
        release.set()
        bench.router.close()
        details = [e.detail for e in bench.exposures()]
        # One is being computed, one waits; the third is not even tried.
        assert details == ["new: no answer within 50 ms", "new: no answer within 50 ms", "new: overloaded", ""]

    asyncio.run(scenario())


def test_more_requests_than_may_wait_get_503_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        release = threading.Event()

        def slow(items: np.ndarray) -> np.ndarray:
            release.wait(30)
            return items

        bench = Bench(tmp_path, old=slow)
        waiting = [asyncio.create_task(bench.infer(OLD, id=f"r{i}")) for i in range(2)]
        while not bench.router.control.full:
            await asyncio.sleep(0)
        status, answer = await bench.infer(OLD, id="too many")
        assert (status, answer) == (503, {"error": "router: too many requests are waiting; try again later"})
        release.set()
        assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
        bench.router.close()
        assert sorted(e.request_id for e in bench.exposures()) == ["r0", "r1"]

    asyncio.run(scenario())


def test_a_control_that_fails_is_a_500_and_no_exposure(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, old=raising, new=raising)
        for user in (OLD, NEW):
            status, answer = await bench.infer(user)
            assert status == 500
            assert "the control cannot answer: kernel exploded" in str(answer["error"])
        bench.router.close()
        assert bench.exposures() == []

    asyncio.run(scenario())


def test_an_answer_that_cannot_be_written_is_not_recorded(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.router.control.session.run = lambda feeds: {"score": feeds["item"].astype(np.longdouble)}  # type: ignore[method-assign]
        status, answer = await bench.infer(OLD)
        bench.router.close()
        assert status == 500
        assert "its answer cannot be encoded: tensor: expected one of bool" in str(answer["error"])
        assert bench.exposures() == []

    asyncio.run(scenario())


def test_an_arm_whose_output_has_no_name_in_the_protocol_is_refused(tmp_path: Path, store: Store) -> None:
    with store.draft("halves") as draft:
        high = store.resolve("high")
        draft.model_path.write_bytes(high.model_path.read_bytes())
        (score,) = high.manifest.signature.outputs
        draft.signature = msgspec.structs.replace(high.manifest.signature, outputs=(msgspec.structs.replace(score, dtype="bfloat16"),))
        store.commit(draft)
    arms = (Arm(name="old", model="high", weight=1), Arm(name="new", model="halves", weight=1))
    with pytest.raises(InputError, match=r"arm 'new': output 'score': expected one of bool.*, found bfloat16"):
        load_arms(msgspec.structs.replace(EXPERIMENT, arms=arms), store)


def test_a_slate_that_cannot_be_recorded_is_not_shown(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.exposures_log.close()
        assert (await bench.infer(OLD))[0] == 503
        bench.router.close()

    asyncio.run(scenario())


def test_an_arm_asked_for_by_version_or_name_is_an_override(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        for version in ("v1.1", "new"):
            _, answer = await bench.infer(OLD, path=f"/v2/models/x/versions/{version}/infer")
            assert answer["model_version"] == "v1.1"
        bench.router.close()
        assert {(e.assigned_arm, e.served_arm, e.reason) for e in bench.exposures()} == {("old", "new", "override")}

    asyncio.run(scenario())


def test_a_user_outside_the_coverage_gets_the_control_and_is_not_enrolled(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path, experiment=msgspec.structs.replace(EXPERIMENT, coverage=0.0))
        _, answer = await bench.infer(NEW)
        bench.router.close()
        assert answer["model_version"] == "v1.0"
        (exposure,) = bench.exposures()
        assert (exposure.enrolled, exposure.reason) == (False, "not_enrolled")

    asyncio.run(scenario())


def test_a_retry_gets_the_same_arm_and_the_same_exposure_id(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        answers = [await bench.infer(NEW) for _ in range(2)]
        assert answers[0] == answers[1]
        bench.router.close()
        assert len({e.exposure_id for e in bench.exposures()}) == 1

    asyncio.run(scenario())


def test_the_user_may_come_in_a_header_but_must_come(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        assert (await bench.call("POST", "/v2/models/x/infer", request(None), {"x-user-id": NEW}))[1]["model_version"] == "v1.1"
        status, answer = await bench.infer(None)
        assert status == 400
        assert "parameter 'user_id': expected the user's id" in str(answer["error"])
        bench.router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v2/models/y", b"", 404, "unknown model 'y'"),
        ("GET", "/v2/models/x/versions/v9", b"", 404, "unknown version 'v9'; known: v1.0, v1.1"),
        ("GET", "/v2/models/x/config", b"", 404, "nothing answers to"),
        ("GET", "/", b"", 404, "nothing answers to /"),
        ("GET", "/v2/models/x/infer", b"", 405, "takes POST, not GET"),
        ("POST", "/v2/health/ready", b"", 405, "takes GET, not POST"),
        ("POST", "/v2/models/x/infer", b"{", 400, "request body"),
        ("POST", "/v2/models/x/infer", b"", 400, "request body"),
        ("POST", "/v2/models/x/infer", b"\xff\xfe", 400, "request body"),
        ("POST", "/v2/models/x/infer", b"x" * 5000, 413, "at most 4096 bytes"),
        ("POST", "/v2/models/x/infer", request(OLD, outputs=[{"name": "scroe"}]), 400, "unknown output 'scroe'; did you mean 'score'?"),
        ("POST", "/v2/models/x/infer", request(OLD, inputs=[]), 400, "expected the inputs user, item"),
        ("POST", "/v2/models/x/infer", b'{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":' + b"[" * 3000, 400, "recursion"),
        ("POST", "/v2/models/x/infer", request(OLD, parameters={"user_id": OLD, "segment": "all"}), 400, "another name than 'all'"),
        ("POST", "/v1/events", b'{"kind":"click","exposure_id":"e"}', 400, "event 0"),
        ("POST", "/v1/events", b'{"kind":"click","exposure_id":"e","item":%d}' % 2**70, 400, "event 0"),
        ("POST", "/v1/events", b"[" * 3000, 400, "recursion"),
        ("POST", "/v1/events", b'{"kind":' + b"[" * 3000, 400, "event 0"),
        ("POST", "/v1/events", b'[{"kind":"click","exposure_id":"e","itme":1}]', 400, "event 0: unknown key 'itme'; did you mean 'item'?"),
        ("POST", "/v1/events", b"[1", 400, "events"),
    ],
)
def test_bad_requests_get_their_status_and_a_reason(  # noqa: PLR0917 - pytest passes them by name
    tmp_path: Path, method: str, path: str, body: bytes, status: int, message: str
) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        found, answer = await bench.call(method, path, body)
        bench.router.close()
        assert found == status
        assert message in str(answer["error"])

    asyncio.run(scenario())


def test_one_bad_event_stores_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        good = '{"kind":"click","exposure_id":"e","item":1}'
        status, answer = await bench.call("POST", "/v1/events", f"[{good},{good},{{}}]".encode())
        assert (status, str(answer["error"]).startswith("event 2")) == (400, True)
        assert (tmp_path / "events.jsonl").read_bytes() == b""
        assert (await bench.call("POST", "/v1/events", f"[{good},{good}]".encode())) == (200, {"accepted": 2})
        assert len((tmp_path / "events.jsonl").read_bytes().splitlines()) == 2
        bench.router.close()

    asyncio.run(scenario())


def test_nothing_is_served_before_the_warm_up_ended(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        bench.router.ready = False
        paths = ("/v2/health/ready", "/v2/models/x/ready")
        assert [(await bench.call("GET", path))[0] for path in paths] == [503, 503]
        assert (await bench.call("GET", "/v2/health/live"))[0] == 200
        assert (await bench.infer(OLD))[0] == 503
        bench.router.ready = True
        assert [(await bench.call("GET", path))[0] for path in paths] == [200, 200]
        bench.router.close()

    asyncio.run(scenario())


def test_metrics_count_by_arm_and_never_name_a_user(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = Bench(tmp_path)
        for user in (OLD, NEW, "a-secret-user"):
            await bench.infer(user)
        text = bench.router.render_metrics()
        bench.router.close()
        assert 'request_predict_seconds_count{model_name="x"} 3' in text
        assert sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith("liftgate_exposures_total{")) == 3
        assert "a-secret-user" not in text

    asyncio.run(scenario())
