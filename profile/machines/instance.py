"""Instance profiles: what a rented machine has, and what it costs."""

from __future__ import annotations

import datetime
import difflib
import os
import platform
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec

from ...core.config import read_toml
from ...core.errors import InputError, UnknownName
from ...core.gpu import GpuFacts
from ...core.machine import FEATURES, this_machine
from ...core.session_defaults import Device
from ..result import Label

LOCAL = "local"
OWN_FOLDER = "LIFTGATE_INSTANCES"
PRICES_FILE = "prices.toml"
_SHIPPED = Path(__file__).parents[1] / "instances"

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Words = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
Architecture = Literal["x86_64", "aarch64", "ppc64le", "s390x", "riscv64"]


class Gpu(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """GPUs of one model, the name as the driver has it without the maker (`T4`, `A10G`); `memory_gib` is of each, as the maker says it."""

    model: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]+$", max_length=32)]
    count: Annotated[int, msgspec.Meta(ge=1, le=64)]
    memory_gib: Annotated[float, msgspec.Meta(gt=0, le=4096)]

    def __str__(self) -> str:
        return f"{f'{self.count} x ' if self.count > 1 else ''}{self.model} {self.memory_gib:g} GB"


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an hour costs in a region, who says so and as of when; `note` says what is uncertain about it."""

    usd_per_hour: Annotated[float, msgspec.Meta(gt=0, le=10_000)]
    region: Words
    date: datetime.date
    source: Words
    note: Words | None = None


class Instance(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine type. A `vcpu` is a hardware thread, so there are `vcpu / threads_per_core` cores.

    `price` may be a sentence that says why there is none; `note` says what is uncertain about the rest.
    """

    name: Name
    provider: Words
    vcpu: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    threads_per_core: Annotated[int, msgspec.Meta(ge=1, le=8)]
    memory_gib: Annotated[float, msgspec.Meta(gt=0, le=65_536)]
    cpu: Words
    architecture: Architecture
    features: tuple[str, ...]
    price: Price | Words
    gpu: Gpu | None = None
    note: Words | None = None

    def __post_init__(self) -> None:
        if self.vcpu % self.threads_per_core:
            raise ValueError(
                f"expected threads_per_core to divide vcpu, found {self.vcpu} vcpu and {self.threads_per_core} threads per core"
            )
        known = FEATURES.get(self.architecture, ())
        for feature in self.features:
            if feature not in known:
                near = difflib.get_close_matches(feature, known, n=1, cutoff=0.5)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                expected = ", ".join(known) or "none"
                raise ValueError(f"features: expected those known of {self.architecture} ({expected}), found '{feature}'{hint}")
        if len(set(self.features)) < len(self.features):
            raise ValueError(f"features: expected each once, found {', '.join(self.features)}")

    @property
    def cores(self) -> int:
        return self.vcpu // self.threads_per_core

    @property
    def price_usd_per_hour(self) -> float | None:
        """None when there is no price; `price` then says why."""
        return self.price.usd_per_hour if isinstance(self.price, Price) else None


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and with how many threads a model runs to stand for an instance; with a `gpu` it runs on that one.

    `standing` says how the instance is imitated, or that it is the instance, `memory` whether its memory is a limit here, and
    `memory_limited` that workers have to be confined to it. Of an extrapolated instance only one of `parts` equal parts runs here.
    """

    instance: Instance
    cpus: tuple[int, ...]
    threads: int
    label: Label
    standing: str
    memory: str = ""
    memory_limited: bool = False
    gpu: GpuFacts | None = None
    parts: int = 1

    @property
    def note(self) -> str:
        return f"{self.standing}; {self.memory}" if self.memory else self.standing

    @property
    def device(self) -> Device:
        return "cpu" if self.gpu is None else "cuda"

    @property
    def memory_limit_bytes(self) -> int:
        return int(self.instance.memory_gib * 2**30 / self.parts)


class PriceTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's own `prices.toml`: what instances cost them."""

    prices: dict[Name, Price]


def instances() -> dict[str, Instance]:
    """Every known instance by name: `local`, which is this machine, the shipped ones, and those of the folder in LIFTGATE_INSTANCES.

    Raises InputError for a file of that folder that is not what it must be.
    """
    own = os.environ.get(OWN_FOLDER)
    return dict(_known(Path(own).absolute() if own else None))


def find_instance(name: str, *, where: str = "--instance") -> Instance:
    """The instance called `name`; raises UnknownName."""
    known = instances()
    if name not in known:
        raise UnknownName(where, "instance", name, known, fix="see `profile instances`")
    return known[name]


@cache
def _known(own: Path | None) -> dict[str, Instance]:
    known = {LOCAL: _here()} | _read_folder(_SHIPPED)
    if own is None:
        return known
    if not own.is_dir():
        found = "a file" if own.exists() else "nothing"
        raise InputError.mismatch(f"{OWN_FOLDER}={own}", expected="a folder of instance files", found=found, fix="unset it, or make it")
    known |= _read_folder(own)
    prices = own / PRICES_FILE
    if prices.exists():
        for name, price in read_toml(prices, PriceTable).prices.items():
            if name not in known:
                raise UnknownName(str(prices), "instance", name, known)
            known[name] = msgspec.structs.replace(known[name], price=price)
    return known


def _read_folder(folder: Path) -> dict[str, Instance]:
    found = {}
    for path in sorted(folder.glob("*.toml")):
        if path.name == PRICES_FILE:
            continue
        instance = read_toml(path, Instance)
        if path.stem != instance.name:
            fix = f"call the file {instance.name}.toml"
            raise InputError.mismatch(f"{path}: name", expected=f"the file's, '{path.stem}'", found=f"'{instance.name}'", fix=fix)
        if instance.name == LOCAL:
            raise InputError(f"{path}: name", "'local' is this machine, which is read and not written down", fix="choose another name")
        found[instance.name] = instance
    return found


def _here() -> Instance:
    machine = this_machine()
    return Instance(
        name=LOCAL,
        provider="this machine",
        vcpu=machine.cores,
        # With some CPUs off, the first core may have more threads than the others.
        threads_per_core=machine.threads_per_core if machine.cores % machine.threads_per_core == 0 else 1,
        memory_gib=machine.memory_gib,
        cpu=machine.cpu,
        architecture=cast(Architecture, platform.machine()),
        features=machine.features,
        price=f"nobody has said what this machine costs: put it into {PRICES_FILE} of the folder in {OWN_FOLDER}",
    )
