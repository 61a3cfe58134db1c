"""The router as a process of its own, spoken to over loopback."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.core.store import Store
from liftgate.experiment.assignment import assign
from liftgate.experiment.config import read_experiment
from liftgate.experiment.logs import summarise
from liftgate.experiment.records import Exposure
from liftgate.serve.port import free_port
from liftgate.serve.process import RouterProcess

ITEMS = [5, 9, 1, 7]


def request(user: str, request_id: str) -> bytes:
    inputs = [
        {"name": "user", "shape": [1], "datatype": "INT64", "data": [3]},
        {"name": "item", "shape": [4], "datatype": "INT64", "data": ITEMS},
    ]
    return json.dumps({"id": request_id, "parameters": {"user_id": user}, "inputs": inputs}).encode()


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, dict[str, object]]:
    connection.request("POST", path, body)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the router to its end: for when it is expected to refuse."""
    command = [sys.executable, "-m", "liftgate.serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def read_exposures(logs: Path) -> list[Exposure]:
    """Every whole line."""
    lines = (logs / "exposures.jsonl").read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Exposure) for line in lines]


class Load:
    """Threads that send requests until the router is gone, and remember every answered exposure."""

    def __init__(self, router: RouterProcess, threads: int) -> None:
        self.answered: set[str] = set()
        self.statuses: set[int] = set()
        self._router = router
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(i,)) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def _work(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._router.host, self._router.port, timeout=30)
        try:
            for i in range(100_000):
                if self._stop.is_set():
                    return
                status, answer = post(connection, "/v2/models/demo/infer", request(f"u{number}-{i % 7}", f"{number}-{i}"))
                self.statuses.add(status)
                if status == 200:
                    parameters = answer["parameters"]
                    assert isinstance(parameters, dict)
                    self.answered.add(parameters["exposure_id"])
        except (OSError, http.client.HTTPException, ValueError):
            return  # the router is gone, perhaps in the middle of an answer
        finally:
            connection.close()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.answered) < count and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(self.answered) >= count

    def join(self, *, stop: bool = False) -> None:
        if stop:
            self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_a_killed_router_has_logged_every_exposure_whose_answer_was_received(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    router = RouterProcess(experiment_file, logs=logs, store=store.root)
    router.start()
    load = Load(router, threads=8)
    try:
        load.wait_for(300)
    finally:
        router.kill()
        load.join()
    assert load.statuses == {200}
    logged = {e.exposure_id for e in read_exposures(logs)}
    assert load.answered <= logged
    # At most one request per connection was on its way.
    assert len(logged - load.answered) <= 8


def test_a_restarted_router_goes_on_behind_a_torn_line(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "exposures.jsonl").write_bytes(b'{"exposure_id": "to')
    with RouterProcess(experiment_file, logs=logs, store=store.root) as router:
        connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
        first = post(connection, "/v2/models/demo/infer", request("u1", "r1"))
        again = post(connection, "/v2/models/demo/infer", request("u1", "r1"))
        status, _ = post(connection, "/v1/events", b'{"kind":"click","request_id":"r1","unit":"u1","item":7}')
        connection.close()
    assert (first[0], status) == (200, 200)
    assert first == again
    found = summarise(read_experiment(logs / "experiment.toml"), logs)
    assert sum(arm.exposures for arm in found.arms.values()) == 1
    assert sum(arm.sums.c for arm in found.arms.values()) == 1
    assert found.ignored == {"exposures_repeated": 1}


def test_a_stopped_router_answers_what_is_in_flight_and_exits_with_zero(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    router = RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root)
    router.start()
    load = Load(router, threads=4)
    try:
        load.wait_for(50)
        assert router.stop() == 0
    finally:
        router.kill()
        load.join(stop=True)
    assert load.statuses <= {200, 503}
    assert load.answered == {e.exposure_id for e in read_exposures(tmp_path / "logs")}


def test_a_treatment_that_hangs_does_not_keep_the_router_from_ending(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    text = experiment_file.read_text().replace('"low", weight = 50', '"hang", weight = 50').replace('"30 s"', '"50 ms"')
    experiment_file.write_text(text)
    user = next(u for u in map(str, range(99)) if assign(read_experiment(experiment_file), u).arm == "treatment")
    router = RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root, timeout_s=20)
    router.start()
    try:
        connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
        status, answer = post(connection, "/v2/models/demo/infer", request(user, "r1").replace(b"[5, 9, 1, 7]", b"[500, 9, 1, 7]"))
        connection.close()
        assert (status, answer["model_version"]) == (200, "high")
        assert router.stop() == 0  # by force, after 20 s, it would be -9
    finally:
        router.kill()
    assert [e.detail for e in read_exposures(tmp_path / "logs")] == ["treatment: no answer within 50 ms"]


def test_modules_in_the_current_folder_are_not_imported(
    store: Store, experiment_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('the random.py of the current folder')")
    monkeypatch.chdir(tmp_path)
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root) as router:
        assert router.pid > 0


def test_a_second_router_on_the_same_port_is_refused(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root) as router:
        with pytest.raises(InputError, match="Address already in use"):
            RouterProcess(experiment_file, logs=tmp_path / "other", store=store.root, port=router.port).start()
        result = serve(str(experiment_file), "--logs", str(tmp_path / "other"), "--port", str(router.port), "--store", str(store.root))
    assert result.returncode == 2
    assert "cannot be listened on (Address already in use)" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_model_that_is_not_there_is_reported_before_the_port_is_opened(store: Store, tmp_path: Path) -> None:
    port = free_port()
    models = ("high", "lwo", "--split", "90:10")
    result = serve(*models, "--logs", str(tmp_path / "logs"), "--port", str(port), "--store", str(store.root))
    assert result.returncode == 2
    assert "arm 'lwo'" in result.stderr
    assert "did you mean 'low'?" in result.stderr
    assert not (tmp_path / "logs").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_router_that_cannot_start_fails_with_its_own_words(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="expected a TOML file, found nothing"):
        RouterProcess(tmp_path / "none.toml", logs=tmp_path / "logs", store=store.root).start()


def test_a_treatment_that_gives_nan_falls_back_in_the_real_runtime(store: Store, experiment_file: Path, tmp_path: Path) -> None:
    experiment_file.write_text(experiment_file.read_text().replace('"low", weight = 50', '"nan", weight = 99950'))
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root) as router:
        connection = http.client.HTTPConnection(router.host, router.port, timeout=30)
        body = request("u1", "r1").replace(b"[5, 9, 1, 7]", b"[500, 9, 1, 7]")
        status, answer = post(connection, "/v2/models/demo/infer", body)
        connection.close()
    assert (status, answer["model_version"]) == (200, "high")
    (exposure,) = read_exposures(tmp_path / "logs")
    assert (exposure.assigned_arm, exposure.reason) == ("treatment", "fallback")
    assert "NaN" in exposure.detail


@pytest.fixture
def triton() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies warn at import; none of ours are in there
        module: ModuleType = pytest.importorskip("tritonclient.http")
    return module


@pytest.mark.filterwarnings("ignore::DeprecationWarning:gevent", "ignore::DeprecationWarning:geventhttpclient")
@pytest.mark.parametrize("control", ["high", "high-request"])
def test_the_triton_client_talks_to_the_router(
    store: Store, experiment_file: Path, tmp_path: Path, triton: ModuleType, control: str
) -> None:
    experiment_file.write_text(experiment_file.read_text().replace('"high"', f'"{control}"'))
    with RouterProcess(experiment_file, logs=tmp_path / "logs", store=store.root) as router:
        client = triton.InferenceServerClient(f"{router.host}:{router.port}")
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("demo")
        assert client.is_model_ready("demo", control)
        assert client.get_server_metadata()["name"] == "liftgate"
        assert [i["name"] for i in client.get_model_metadata("demo")["inputs"]] == ["user", "item"]
        for binary in (True, False):
            user, item = triton.InferInput("user", [1], "INT64"), triton.InferInput("item", [4], "INT64")
            user.set_data_from_numpy(np.array([3]), binary_data=binary)
            item.set_data_from_numpy(np.array(ITEMS), binary_data=binary)
            wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("score", "slate")]
            for outputs in (None, wanted):
                result = client.infer(
                    "demo", [user, item], outputs=outputs, request_id="r", parameters={"user_id": "u1"}, model_version=control
                )
                assert result.as_numpy("score").tolist() == ITEMS
                assert result.as_numpy("slate").tolist() == [1, 3, 0]
                assert result.get_response()["model_version"] == control
        with pytest.raises(Exception, match="unknown model 'nope'"):
            client.get_model_metadata("nope")
        with pytest.raises(Exception, match="user_id"):
            client.infer("demo", [user, item])
        client.close()
    assert {e.reason for e in read_exposures(tmp_path / "logs")} == {"override"}
