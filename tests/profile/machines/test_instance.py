from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import msgspec
import pytest
from liftgate.core.config import parse_toml
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.gpu import GpuReading
from liftgate.core.machine import Machine
from liftgate.profile.machines.instance import Gpu, Instance, Price, PriceTable, find_instance, instances
from liftgate.profile.machines.placement import core_groups, place
from liftgate.profile.machines.recognise import Recognised

MACHINE = Machine(cpu="Test CPU", cores=8, threads_per_core=1, memory_gib=16.0, features=("avx2",), system="Linux", fingerprint="0")
OWN = """
name = "own"
provider = "our rack"
vcpu = 4
threads_per_core = 2
memory_gib = 8
cpu = "a CPU"
architecture = "x86_64"
features = ["avx2"]
price = "bought, not rented"
"""


def rented(**more: object) -> Instance:
    return msgspec.structs.replace(find_instance("m5.large"), **({"architecture": platform.machine()} | more))


def test_every_shipped_price_has_a_region_a_date_and_a_source_and_there_are_sixteen_instances_or_more() -> None:
    known = instances()
    assert next(iter(known)) == "local"
    wanted = {"m5.large", "m5.xlarge", "c6i.large", "c6i.xlarge", "c7i.large", "m7i.large", "c7g.xlarge", "m7a.large", "g4dn.xlarge"}
    wanted |= {"g5.xlarge", "g6.xlarge", "g6e.xlarge", "p5.48xlarge", "F4s_v2", "NC4as_T4_v3", "n2-standard-4"}
    assert wanted <= set(known)
    prices = [i.price for i in known.values() if i.name != "local"]
    assert all(isinstance(price, Price) and price.region and price.source and price.date.year >= 2025 for price in prices)


def test_what_this_machine_costs_is_unknown_and_not_zero() -> None:
    local = find_instance("local")
    assert local.price_usd_per_hour is None
    assert "nobody has said" in str(local.price)


def test_m5_large_is_one_core_with_two_threads_and_p5_has_eight_gpus() -> None:
    found = find_instance("m5.large")
    assert (found.vcpu, found.cores) == (2, 1)
    assert find_instance("p5.48xlarge").gpu == Gpu(model="H100", count=8, memory_gib=80)


def test_a_mistyped_instance_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'm5.large'"):
        find_instance("m5large")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vcpu = 4", "vcpu = 0", r"^own.toml: vcpu: expected int >= 1, found 0"),
        ("vcpu = 4", "vcpu = 3", r"^own.toml: expected threads_per_core to divide vcpu, found 3 vcpu and 2 threads"),
        ("vcpu = 4", "vpcu = 4", r"^own.toml: unknown key 'vpcu'; did you mean 'vcpu'"),
        ('"avx2"', '"avx512vnni"', r"found 'avx512vnni'; did you mean 'avx512_vnni'"),
        ('"avx2"', '"sve"', r"expected those known of x86_64 .* found 'sve'"),
        ('"avx2"', '"avx2", "avx2"', r"features: expected each once"),
        ('"bought, not rented"', '""', r"price"),
        ('price = "bought, not rented"', "[price]\nusd_per_hour = 1", r"expected the key 'region', found none"),
        ('"x86_64"', '"amd64"', r"amd64"),
        ("memory_gib = 8", "memory_gib = -8", r"memory_gib: expected float > 0.0, found -8"),
    ],
)
def test_a_profile_that_is_not_what_it_must_be_is_refused_by_place(old: str, new: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_toml(OWN.replace(old, new), Instance, where="own.toml")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.toml").write_text(OWN)
    monkeypatch.setenv("LIFTGATE_INSTANCES", str(tmp_path))
    return tmp_path


def test_a_folder_of_ones_own_adds_instances_replaces_shipped_ones_and_changes_prices(own: Path) -> None:
    (own / "m5.large.toml").write_text(OWN.replace('"own"', '"m5.large"'))
    price = '\nusd_per_hour = 0.07\nregion = "eu-west-1"\ndate = 2026-01-31\nsource = "our contract"\n'
    (own / "prices.toml").write_text(f'[prices."m5.xlarge"]{price}[prices.local]{price}')
    known = instances()
    assert (known["own"].cores, known["m5.large"].provider) == (2, "our rack")
    assert [known[name].price_usd_per_hour for name in ("m5.xlarge", "local", "m5.large")] == [0.07, 0.07, None]
    assert known["m5.xlarge"].memory_gib == 16


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("prices.toml", '[prices."m5large"]\nusd_per_hour = 1\nregion = "r"\ndate = 2026-01-31\nsource = "s"', "did you mean 'm5.large'"),
        ("prices.toml", "[prices.local]\nusd_per_hour = 0", r"prices.toml: .*usd_per_hour|expected the key"),
        ("other.toml", OWN, r"other.toml: name: expected the file's, 'other', found 'own'; call the file own.toml"),
        ("local.toml", OWN.replace('"own"', '"local"'), r"'local' is this machine"),
    ],
)
def test_a_wrong_file_of_ones_own_is_refused_and_not_skipped(own: Path, file: str, text: str, message: str) -> None:
    (own / file).write_text(text)
    with pytest.raises(InputError, match=message):
        instances()


@pytest.mark.parametrize(("name", "kind"), [("own instance", Instance), ("prices", PriceTable)])
def test_the_examples_of_the_page_on_instances_are_read_as_they_stand(name: str, kind: type) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs/instances.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- example: {name} -->\n```toml\n(.*?)```", page, re.DOTALL)
    assert match is not None
    parse_toml(match[1], kind, where=name)


def test_a_folder_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIFTGATE_INSTANCES", str(tmp_path / "none"))
    with pytest.raises(InputError, match="expected a folder of instance files, found nothing"):
        instances()


def test_an_emulated_instance_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    placement = place(rented(), allowed=frozenset({0, 1, 2}), machine=MACHINE)
    assert (placement.cpus, placement.threads, placement.label, placement.device) == ((0,), 1, "emulated", "cpu")
    assert "the instance has 2 threads per core, this machine gives it 1" in placement.note
    assert "lacks fma, f16c, avx512f" in placement.note
    assert placement.note.endswith("memory is checked, not limited")


def test_hyper_threads_of_one_core_are_used_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu % 2, cpu % 2 + 2})
    assert core_groups(frozenset({0, 1, 2, 3})) == [(0, 2), (1, 3)]
    placement = place(rented(), allowed=frozenset({0, 1, 2, 3}), machine=MACHINE)
    assert (placement.cpus, placement.threads) == ((0, 2), 1)


def test_an_instance_without_hyper_threads_gets_one_thread_of_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu % 2, cpu % 2 + 2})
    placement = place(rented(threads_per_core=1), allowed=frozenset({0, 1, 2, 3}), machine=MACHINE)
    assert (placement.cpus, placement.threads) == ((0, 1), 2)


def test_a_core_without_its_sibling_is_the_last_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu % 2, cpu % 2 + 2})
    assert core_groups(frozenset({0, 1, 3})) == [(1, 3), (0,)]


def test_threads_that_the_instance_has_and_this_machine_has_not_share_a_cpu_and_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    placement = place(rented(), threads=2, allowed=frozenset({0}), machine=MACHINE)
    assert (placement.threads, placement.cpus) == (2, (0,))
    assert "2 threads share 1 CPU" in placement.note
    with pytest.raises(InputError, match=r"--threads: expected at most 2, the vCPU of m5\.large, found 3"):
        place(rented(), threads=3, allowed=frozenset({0}), machine=MACHINE)


def test_less_memory_than_the_instance_has_is_told() -> None:
    placement = place(rented(memory_gib=64), allowed=frozenset({0}), machine=MACHINE)
    assert "this machine has 16 GiB of memory, the instance 64" in placement.note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": Gpu(model="T4", count=1, memory_gib=16)}, r"needs the GPU T4 \(16 GB\), found no GPU here"),
        ({"architecture": "s390x", "features": ()}, "is s390x and this machine is"),
        ({"vcpu": 4096}, "has 2048 cores and this process may use 1"),
    ],
)
def test_what_cannot_be_imitated_is_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        place(rented(**change), allowed=frozenset({0}), machine=MACHINE, gpus=GpuReading(problem="no GPU here"))


def test_a_larger_instance_is_extrapolated_from_a_server_on_some_of_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    placement = place(rented(vcpu=20, memory_gib=40), threads=2, allowed=frozenset({0, 1, 2}), machine=MACHINE)
    assert (placement.label, placement.cpus, placement.threads, placement.parts) == ("extrapolated", (0, 1), 2, 5)
    assert placement.memory_limit_bytes == 8 * 2**30
    assert "only 2 of the 10 cores of m5.large are here" in placement.note
    assert "taken for 5 such parts" in placement.note


@pytest.mark.parametrize(
    ("threads", "change", "message"),
    [
        (None, {}, r"has 10 cores and this process may use 4.*or extrapolate from some of its cores: --threads 1, 2 \(of all servers"),
        (3, {}, r"--threads: expected to extrapolate m5\.large with its 10 cores: 1, 2 .*, found 3"),
        (5, {}, r"--threads: expected to extrapolate m5\.large with its 10 cores: 1, 2 .*, found 5"),
        (1, {"architecture": "s390x", "features": ()}, "is s390x and this machine is"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(
    threads: int | None, change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    with pytest.raises(InputError, match=message):
        place(rented(vcpu=20, **change), threads=threads, allowed=frozenset({0, 1, 2, 3}), machine=MACHINE)


def test_a_part_of_the_instance_itself_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.machines.placement._siblings", lambda cpu: {cpu})
    placement = place(rented(vcpu=20), threads=2, allowed=frozenset({0, 1}), machine=NITRO, recognised=HERE)
    assert placement.label == "extrapolated"
    assert placement.note.startswith("this machine says it is m5.large, but this process may use 2 CPUs and not 20; only 2 of the 10 cores")


def test_local_is_measured_on_all_cores_unless_told_otherwise() -> None:
    everything = place(find_instance("local"))
    assert (everything.label, everything.cpus) == ("measured", tuple(sorted(os.sched_getaffinity(0))))
    cores = core_groups(frozenset(os.sched_getaffinity(0)))
    assert place(find_instance("local"), threads=1).cpus == (everything.cpus if len(cores) == 1 else cores[0][:1])
    with pytest.raises(InputError, match="expected at most"):
        place(find_instance("local"), threads=4096)


HERE = Recognised(cloud="aws", instance="m5.large", how="its firmware says so")
NITRO = msgspec.structs.replace(MACHINE, cores=2, threads_per_core=2, memory_gib=7.6)


def test_the_instance_itself_is_measured_whole_and_says_how_it_was_recognised() -> None:
    placement = place(rented(), allowed=frozenset({0, 1}), machine=NITRO, recognised=HERE)
    assert (placement.label, placement.cpus, placement.threads, placement.memory) == ("measured", (0, 1), 1, "")
    assert "this machine is m5.large (its firmware says so)" in placement.note


def test_the_instance_itself_needs_no_profile_of_the_right_architecture_but_another_one_does() -> None:
    other = rented(architecture="s390x", features=())
    assert place(other, allowed=frozenset({0, 1}), machine=NITRO, recognised=HERE).label == "measured"
    with pytest.raises(InputError, match="is s390x"):
        place(msgspec.structs.replace(other, name="m5.big"), allowed=frozenset({0, 1}), machine=NITRO, recognised=HERE)


@pytest.mark.parametrize(
    ("allowed", "memory_gib", "why"),
    [({0}, 7.6, "but this process may use 1 CPU and not 2"), ({0, 1}, 3.9, "but it has 3.9 GiB of memory and not 8")],
)
def test_a_part_of_the_instance_is_not_the_instance(allowed: set[int], memory_gib: float, why: str) -> None:
    machine = msgspec.structs.replace(NITRO, memory_gib=memory_gib)
    placement = place(rented(), allowed=frozenset(allowed), machine=machine, recognised=HERE)
    assert placement.label == "emulated"
    assert why in placement.note


def test_another_instance_than_this_one_is_emulated() -> None:
    recognised = msgspec.structs.replace(HERE, instance="m5.xlarge")
    assert place(rented(), allowed=frozenset({0, 1}), machine=NITRO, recognised=recognised).label == "emulated"
    assert "this machine is m5.xlarge" in place(find_instance("local"), threads=1, recognised=recognised).note
