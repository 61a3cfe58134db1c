from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import msgspec
import pytest
from liftgate.core.gpu import GpuFacts, GpuReading
from liftgate.profile.cli import app
from liftgate.profile.machines.catalogue import standing
from liftgate.profile.machines.instance import find_instance
from typer.testing import CliRunner

OWN = """
name = "rack"
provider = "our own"
vcpu = 1
threads_per_core = 1
memory_gib = 0.001
cpu = "a [CPU]"
architecture = "x86_64"
features = []
price = "bought, not rented"
"""


def listed(*more: str) -> str:
    done = CliRunner().invoke(app, ["instances", *more])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_instances_are_listed_with_what_this_machine_can_do_about_each() -> None:
    lines = {line.split()[0]: line for line in listed().splitlines() if line.strip()}
    assert lines["local"].rstrip().endswith("measured")
    assert re.search(r"1\.006 .* no: needs the GPU A10G", lines["g5.xlarge"])


def test_the_list_fits_a_hundred_columns() -> None:
    assert max(len(line.rstrip()) for line in listed().splitlines()) <= 100


def test_one_instance_tells_where_its_price_is_from_and_why_it_is_refused() -> None:
    text = listed("g5.xlarge")
    assert "1.006 USD an hour in us-east-1 on 2025-03-02" in text
    assert "apache-libcloud" in text
    assert "refused: needs the GPU A10G (24 GB), found no GPU" in text
    assert "measure on g5.xlarge itself" in text


def test_a_gpu_that_is_here_runs_torch_and_says_what_onnx_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    t4 = GpuReading(gpus=(GpuFacts(name="Tesla T4", memory_gib=15.0, driver="550", uuid="GPU-1"),))
    monkeypatch.setattr("liftgate.profile.machines.placement.read_gpus", lambda: t4)
    one = msgspec.structs.replace(find_instance("g4dn.xlarge"), vcpu=1, threads_per_core=1, architecture=platform.machine())
    found = standing(one, None)
    assert found.label == "emulated"
    assert "on one T4" in found.note
    assert found.fix.startswith("install onnxruntime-gpu in place of onnxruntime")


def test_ones_own_instance_is_shown_without_a_price_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rack.toml").write_text(OWN)
    monkeypatch.setenv("LIFTGATE_INSTANCES", str(tmp_path))
    text = listed("rack")
    assert "none: bought, not rented" in text
    assert "a [CPU]" in text
    assert "memory is checked, not limited: LIFTGATE_CGROUP=off" in text


def test_json_has_the_profile_and_what_this_machine_can_do(tmp_path: Path) -> None:
    listed("local", "--json", str(tmp_path / "one.json"))
    one = json.loads((tmp_path / "one.json").read_text())
    assert (one["instance"]["name"], one["label"], one["instance"]["gpu"]) == ("local", "measured", None)
    listed("--json", str(tmp_path / "all.json"))
    everything = json.loads((tmp_path / "all.json").read_text())
    p5 = next(row for row in everything if row["instance"]["name"] == "p5.48xlarge")
    assert (p5["label"], p5["instance"]["gpu"]["count"], p5["instance"]["price"]["date"]) == (None, 8, "2025-03-02")


def test_an_unknown_instance_is_a_usage_error() -> None:
    done = CliRunner().invoke(app, ["instances", "m5larg"])
    assert done.exit_code == 2
    assert "did you mean 'm5.large'" in done.stderr
