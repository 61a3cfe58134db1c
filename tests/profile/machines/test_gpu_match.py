from __future__ import annotations

import msgspec
import pytest
from liftgate.core.errors import InputError
from liftgate.core.gpu import GpuFacts, GpuReading
from liftgate.profile.machines.gpu_match import find_gpu
from liftgate.profile.machines.instance import find_instance
from liftgate.profile.machines.placement import place

T4 = GpuFacts(name="Tesla T4", memory_gib=15.0, driver="550.54.15", uuid="GPU-1")
A10G = GpuFacts(name="NVIDIA A10G", memory_gib=22.5, driver="550.54.15", uuid="GPU-2")
L40S = GpuFacts(name="NVIDIA L40S", memory_gib=45.0, driver="550.54.15", uuid="GPU-3")
H100 = GpuFacts(name="NVIDIA H100 80GB HBM3", memory_gib=79.6, driver="550.54.15", uuid="GPU-4")


@pytest.mark.parametrize(
    ("instance", "gpu"),
    [("g4dn.xlarge", T4), ("NC4as_T4_v3", T4), ("g5.xlarge", A10G), ("g6e.xlarge", L40S), ("p5.48xlarge", H100)],
)
def test_the_gpu_of_an_instance_is_found_under_its_drivers_name(instance: str, gpu: GpuFacts) -> None:
    others = [other for other in (T4, A10G, L40S, H100) if other is not gpu]
    assert find_gpu(find_instance(instance), GpuReading(gpus=(*others, gpu))) is gpu


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (
            GpuReading(problem="no GPU (nvidia-smi is not installed)"),
            r"found no GPU \(nvidia-smi is .*a profile without a GPU",
        ),
        (GpuReading(gpus=(L40S,)), r"needs the GPU L4 \(24 GB\), found NVIDIA L40S \(45 GiB\); measure on g6.xlarge itself"),
        (GpuReading(gpus=(msgspec.structs.replace(A10G, name="NVIDIA L4", memory_gib=11.0),)), r"found NVIDIA L4 \(11 GiB\)"),
        (GpuReading(gpus=(msgspec.structs.replace(A10G, name="NVIDIA L4", divided=True),)), r"found NVIDIA L4 \(22.5 GiB divided by MIG\)"),
    ],
)
def test_another_gpu_is_refused_with_what_was_found_and_what_to_do(reading: GpuReading, found: str) -> None:
    with pytest.raises(InputError, match=found):
        find_gpu(find_instance("g6.xlarge"), reading)


def test_a_gpu_instance_runs_on_the_gpu_and_says_that_copies_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    placement = place(find_instance("g4dn.xlarge"), allowed=frozenset(range(4)), gpus=GpuReading(gpus=(T4,)))
    assert (placement.device, placement.gpu, placement.label) == ("cuda", T4, "emulated")
    assert "on one T4, copies to and from it included" in placement.note
