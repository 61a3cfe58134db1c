from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from liftgate.core.gpu import GpuFacts, GpuReading, parse_gpus, read_gpus, visible

# As nvidia-smi writes them with --format=csv,noheader,nounits.
TWO = """GPU-1b2c, Tesla T4, 15360, 550.54.15, [N/A]
GPU-77aa, NVIDIA H100 80GB HBM3, 81559, 550.54.15, Enabled
"""


def test_what_the_driver_says_becomes_facts_in_gib() -> None:
    t4, h100 = parse_gpus(TWO).gpus
    assert t4 == GpuFacts(name="Tesla T4", memory_gib=15.0, driver="550.54.15", uuid="GPU-1b2c")
    assert (h100.memory_gib, h100.divided) == (79.6, True)


@pytest.mark.parametrize(
    ("text", "problem"), [("", "no GPU (nvidia-smi lists none)"), ("NVIDIA-SMI has failed", "an answer of nvidia-smi that cannot be read")]
)
def test_no_gpu_has_a_reason(text: str, problem: str) -> None:
    assert parse_gpus(text).gpus == ()
    assert parse_gpus(text).problem.startswith(problem)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (None, ["Tesla T4", "NVIDIA H100 80GB HBM3"]),
        ("1", ["NVIDIA H100 80GB HBM3"]),
        ("GPU-77,0", ["NVIDIA H100 80GB HBM3", "Tesla T4"]),
        ("0,-1,1", ["Tesla T4"]),
        ("", []),
    ],
)
def test_hidden_gpus_are_not_there(value: str | None, names: list[str]) -> None:
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    found = visible(parse_gpus(TWO), environment)
    assert [gpu.name for gpu in found.gpus] == names
    assert ("hides all 2" in found.problem) == (not names)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    read_gpus.cache_clear()
    yield tmp_path / "nvidia-smi"
    read_gpus.cache_clear()


def test_the_drivers_tool_is_asked(tool: Path) -> None:
    tool.write_text(f"#!/bin/sh\nprintf '{TWO.splitlines()[0]}\\n'\n")
    tool.chmod(0o755)
    assert [gpu.name for gpu in read_gpus().gpus] == ["Tesla T4"]


def test_a_driver_that_fails_is_told_in_its_own_words(tool: Path) -> None:
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'\nexit 9\n")
    tool.chmod(0o755)
    assert read_gpus() == GpuReading(
        problem="an error of nvidia-smi: NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    )


def test_a_machine_without_the_tool_has_no_gpu(tool: Path) -> None:
    assert read_gpus() == GpuReading(problem="no GPU (nvidia-smi is not installed)")
