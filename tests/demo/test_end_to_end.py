from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "liftgate", "demo"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LIFTGATE_")}
    return subprocess.run([*COMMAND, *arguments], env={**clean, **environment}, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.slow
def test_a_tiny_case_goes_from_ratings_to_a_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = run("--scale", "tiny", "--out", str(out), "--json", str(tmp_path / "told.json"))
    assert done.returncode == 0, done.stderr
    assert "GENERATED" in done.stdout.splitlines()[0]
    assert "Traceback" not in done.stderr

    told = json.loads((tmp_path / "told.json").read_text())
    assert told["generated"] is True
    names = {candidate["name"] for candidate in told["candidates"]}
    assert told["choice"]["name"] in names
    assert {"v1.1", "v1.1-exact"} <= names
    # int8 may be slower on matrices this small, which depends on the CPU; then it is refused for that and for nothing else.
    if "v1.1-int8-safe" not in names:
        (refusal,) = told["refused"]
        assert refusal.startswith("int8-safe: quantize_dynamic v1.1: int8-safe: step 3: makes the model slower")

    report = json.loads((out / "report" / "report.json").read_text())
    assert report["story"]["generated"] is True
    assert report["comparison"]["control"]["name"] == "v1.0"
    assert report["comparison"]["candidates"][0]["model"]["name"] == told["choice"]["name"]
    assert {i["instance"]: i["label"] for i in report["comparison"]["instances"]} == {"local": "measured", "m5.large": "emulated"}
    arms = report["analysis"]["arms"]
    assert sum(arm["exposures"] for arm in arms) == told["replayed"]["requests"]
    assert sum(arm["clicks"] for arm in arms) == told["replayed"]["clicks"] > 0
    assert sum(arm["users"] for arm in arms) == told["replayed"]["users"] == 60
    assert not any(report["analysis"]["ignored"].values())
    page = (out / "report" / "report.html").read_text()
    assert "GENERATED" in page and told["choice"]["name"] in page


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    done = run("--out", str(tmp_path))
    assert done.returncode == 2
    assert "expected a new or empty folder, or an earlier demo's, found other files" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_a_data_folder_without_ratings_is_one_clear_line(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path / "out"), LIFTGATE_DATA=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}: expected a folder with ratings.csv and movies.csv, found no ratings.csv;")
    assert not (tmp_path / "out").exists()
