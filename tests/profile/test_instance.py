from __future__ import annotations

import os
import platform

import msgspec
import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.machine import Machine
from liftgate.profile.instance import Instance, core_groups, find_instance, instances, place

MACHINE = Machine(cpu="Test CPU", cores=8, threads_per_core=1, memory_gib=16.0, features=("avx2",), system="Linux", fingerprint="0")


def rented(**more: object) -> Instance:
    return msgspec.structs.replace(find_instance("m5.large"), **({"architecture": platform.machine()} | more))


def test_local_comes_first_and_every_price_has_a_date_and_a_source() -> None:
    known = instances()
    assert next(iter(known)) == "local"
    assert {"m5.large", "m5.xlarge", "c7g.xlarge", "g5.xlarge"} <= set(known)
    assert all(i.price_date and i.price_source for i in known.values() if i.price_usd_per_hour is not None)


def test_m5_large_is_one_core_with_two_threads() -> None:
    found = find_instance("m5.large")
    assert (found.vcpu, found.cores) == (2, 1)


def test_a_mistyped_instance_gets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'm5.large'"):
        find_instance("m5large")


def test_an_emulated_instance_says_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.instance._siblings", lambda cpu: {cpu})
    placement = place(rented(), allowed=frozenset({0, 1, 2}), machine=MACHINE)
    assert (placement.cpus, placement.threads, placement.label) == ((0,), 1, "emulated")
    assert "the instance has 2 threads per core, this machine gives it 1" in placement.note
    assert "lacks avx512f" in placement.note


def test_hyper_threads_of_one_core_are_used_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.instance._siblings", lambda cpu: {cpu % 2, cpu % 2 + 2})
    assert core_groups(frozenset({0, 1, 2, 3})) == [(0, 2), (1, 3)]
    placement = place(rented(), allowed=frozenset({0, 1, 2, 3}), machine=MACHINE)
    assert (placement.cpus, placement.threads) == ((0, 2), 1)


def test_a_core_without_its_sibling_is_the_last_to_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgate.profile.instance._siblings", lambda cpu: {cpu % 2, cpu % 2 + 2})
    assert core_groups(frozenset({0, 1, 3})) == [(1, 3), (0,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gpu": "NVIDIA T4"}, "has a NVIDIA T4, which this machine cannot imitate"),
        ({"architecture": "s390x"}, "is s390x and this machine is"),
        ({"vcpu": 4096}, "has 2048 cores and this process may use 1"),
    ],
)
def test_what_cannot_be_imitated_is_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        place(rented(**change), allowed=frozenset({0}), machine=MACHINE)


def test_local_is_measured_on_all_cores_unless_told_otherwise() -> None:
    everything = place(find_instance("local"))
    assert (everything.label, everything.cpus) == ("measured", tuple(sorted(os.sched_getaffinity(0))))
    assert len(place(find_instance("local"), threads=1).cpus) <= len(everything.cpus)
    with pytest.raises(InputError, match="expected at most"):
        place(find_instance("local"), threads=4096)
