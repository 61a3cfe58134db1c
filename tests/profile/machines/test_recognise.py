from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from liftgate.core.errors import InputError
from liftgate.profile.machines.recognise import Recognised, recognise, recognise_at

AZURE = {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}
GCP = {"sys_vendor": "Google", "product_name": "Google Compute Engine"}
XEN = {"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"}


def machine(root: Path, words: dict[str, str]) -> Path:
    folder = root / "sys/class/dmi/id"
    folder.mkdir(parents=True)
    for name, word in words.items():
        (folder / name).write_text(word + "\n")
    return root


class _Service(BaseHTTPRequestHandler):
    """Answers as the three clouds do, each only to the header it asks for."""

    answers: ClassVar[dict[str, tuple[str, str, str]]] = {
        "/latest/meta-data/instance-type": ("X-aws-ec2-metadata-token", "a token", "t2.micro"),
        "/metadata/instance/compute/vmSize?api-version=2021-02-01&format=text": ("Metadata", "true", "Standard_F4s_v2"),
        "/computeMetadata/v1/instance/machine-type": ("Metadata-Flavor", "Google", "projects/12/machineTypes/n2-standard-4"),
    }

    def do_GET(self) -> None:
        header, value, text = self.answers.get(self.path, ("", "", ""))
        self._answer(text) if text and self.headers.get(header) == value else self.send_error(401)

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self._answer("a token") if asked else self.send_error(400)

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        """Nothing: tests are silent."""


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Service)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_nitro_instance_says_its_type_in_its_firmware_and_nobody_is_asked(tmp_path: Path) -> None:
    root = machine(tmp_path, {"sys_vendor": "Amazon EC2", "product_name": "m5.large"})
    found = recognise_at(root, "http://127.0.0.1:1")
    assert found == Recognised(cloud="aws", instance="m5.large", how="its firmware says so: DMI product name")


@pytest.mark.parametrize("words", [{}, {"sys_vendor": "LENOVO", "product_name": "m5.large"}, AZURE | {"chassis_asset_tag": "None"}])
def test_a_machine_of_no_cloud_is_nobodys(tmp_path: Path, words: dict[str, str]) -> None:
    assert recognise_at(machine(tmp_path, words), "http://127.0.0.1:1") is None


@pytest.mark.parametrize(("words", "cloud"), [(AZURE, "azure"), (GCP, "gcp"), (XEN, "aws")])
def test_without_being_asked_to_only_the_firmware_is_read(tmp_path: Path, words: dict[str, str], cloud: str) -> None:
    found = recognise_at(machine(tmp_path, words), None)
    assert found is not None
    assert (found.cloud, found.instance) == (cloud, None)
    assert "--ask-metadata" in found.how


@pytest.mark.parametrize(("words", "instance"), [(AZURE, "F4s_v2"), (GCP, "n2-standard-4"), (XEN, "t2.micro")])
def test_the_metadata_service_tells_what_the_firmware_does_not(
    tmp_path: Path, service: str, monkeypatch: pytest.MonkeyPatch, words: dict[str, str], instance: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a proxy must never see it
    found = recognise_at(machine(tmp_path, words), service)
    assert found is not None
    assert (found.instance, found.how) == (instance, "the metadata service says so")


def test_a_metadata_service_that_does_not_answer_is_a_reason_and_not_an_instance(tmp_path: Path) -> None:
    found = recognise_at(machine(tmp_path, AZURE), "http://127.0.0.1:1")
    assert found is not None
    assert found.instance is None
    assert "the metadata service did not tell: " in found.how
    assert "refused" in found.how


def test_a_metadata_service_that_refuses_is_a_reason_and_not_an_instance(tmp_path: Path, service: str) -> None:
    found = recognise_at(machine(tmp_path, GCP), service + "/elsewhere")
    assert found is not None
    assert found.instance is None
    assert "Unauthorized" in found.how


def test_the_variable_that_asks_is_yes_or_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTGATE_ASK_METADATA", "maybe")
    with pytest.raises(InputError, match="LIFTGATE_ASK_METADATA: expected 1 or 0, found 'maybe'"):
        recognise()
