"""Which instances there are and what this machine can do about each: the answer of `profile instances`, and its rendering."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ...core.errors import InputError
from ...core.machine import tool_versions
from ..result import Label
from .confine import limit_memory
from .instance import LOCAL, Instance, Placement, Price
from .placement import place
from .recognise import Recognised

_STYLES: dict[Label | None, str] = {"measured": "green", "emulated": "yellow", "extrapolated": "yellow", None: "dim"}
_NO_CUDA = "install onnxruntime-gpu in place of onnxruntime: without it ONNX models are refused on this GPU"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """An instance and how far this machine stands for it: `label` None means that it refuses, and `note` says why.

    `extrapolated` needs to be told how many threads one server gets, as `fix` says.
    """

    instance: Instance
    label: Label | None
    note: str
    threads: int | None = None
    cpus: tuple[int, ...] = ()
    fix: str = ""


def standing(instance: Instance, recognised: Recognised | None, *, settle: Callable[[Placement], Placement] = limit_memory) -> Standing:
    """What measuring for `instance` would be here; `settle` finds out what only a try tells: whether its memory can be a limit."""
    try:
        found = settle(place(instance, recognised=recognised))
    except InputError as error:
        label: Label | None = "extrapolated" if _has_parts(instance) else None
        return Standing(instance=instance, label=label, note=error.problem, fix=error.fix)
    fix = "" if found.gpu is None or "onnxruntime-gpu" in tool_versions() else _NO_CUDA
    return Standing(instance=instance, label=found.label, note=found.note, threads=found.threads, cpus=found.cpus, fix=fix)


def _has_parts(instance: Instance) -> bool:
    try:
        return place(instance, threads=1).label == "extrapolated"
    except InputError:
        return False


def standings(known: Iterable[Instance], recognised: Recognised | None) -> list[Standing]:
    """The same for many, where nothing is tried."""
    return [standing(instance, recognised, settle=lambda placement: placement) for instance in known]


def instances_view(rows: Iterable[Standing], recognised: Recognised | None) -> RenderableType:
    """One row per instance, for a terminal of 100 columns."""
    table = Table(title="instances", title_justify="left", title_style="bold", header_style="", show_edge=False, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("vCPU", justify="right")
    table.add_column("cores", justify="right")
    table.add_column("GiB", justify="right")
    table.add_column("CPU and GPU", max_width=25)
    table.add_column("USD/h", justify="right")
    table.add_column("here", max_width=24)
    for row in rows:
        one = row.instance
        hardware = one.cpu if one.gpu is None else f"{one.cpu} + {one.gpu.count} x {one.gpu.model}"
        price = "" if one.price_usd_per_hour is None else f"{one.price_usd_per_hour:.4g}"
        words = "extrapolated: --threads" if row.label == "extrapolated" else row.label or f"no: {_first_clause(row.note)}"
        can = Text(words, style=_STYLES.get(row.label, ""))
        table.add_row(one.name, str(one.vcpu), str(one.cores), f"{one.memory_gib:g}", escape(hardware), price, can)
    hint = "`profile instances NAME` says why, and where a price is from; docs/instances.md how to add your own"
    return Group(table, "", *_machine_lines(recognised), Text(hint, style="dim"))


def instance_view(row: Standing, recognised: Recognised | None) -> RenderableType:
    """Everything known about one instance."""
    one = row.instance
    hyper = "each on a core of its own" if one.threads_per_core == 1 else f"{one.threads_per_core} threads on each of {one.cores} cores"
    facts: list[tuple[str, str]] = [
        ("provider", one.provider),
        ("vCPU", f"{one.vcpu}, {hyper if one.cores > 1 or one.threads_per_core == 1 else f'{one.threads_per_core} threads of one core'}"),
        ("memory", f"{one.memory_gib:g} GiB"),
        ("CPU", f"{one.cpu}, {one.architecture}"),
        ("features", ", ".join(one.features) or "none that choose kernels"),
        *([("GPU", str(one.gpu))] if one.gpu else []),
        *_price_facts(one.price),
        *([("note", one.note)] if one.note else []),
        ("here", row.note if row.label and row.note.startswith(row.label) else f"{row.label or 'refused'}: {row.note}"),
        *([("threads", f"{row.threads} by default")] if row.threads else []),
        *([("to do", row.fix)] if row.fix else []),
    ]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, text in facts:
        table.add_row(name, escape(text))
    lines = [] if one.name == LOCAL else _machine_lines(recognised)
    return Group(Text(one.name, style="bold"), table, *(["", *lines] if lines else []))


def _first_clause(reason: str) -> str:
    """What is missing, without what was found instead, which the view of one instance tells."""
    return reason.partition(", found")[0].partition(":")[0].partition(" (")[0]


def _price_facts(price: Price | str) -> Sequence[tuple[str, str]]:
    if not isinstance(price, Price):
        return [("price", f"none: {price}")]
    told = f"{price.usd_per_hour:g} USD an hour in {price.region} on {price.date}"
    return [("price", told), ("price from", price.source), *([("price note", price.note)] if price.note else [])]


def _machine_lines(recognised: Recognised | None) -> list[RenderableType]:
    if recognised is None:
        return [Text("this machine does not say that it is rented", style="dim")]
    name = recognised.instance or f"of {recognised.cloud}"
    return [Text(f"this machine is {name}: {recognised.how}", style="dim")]
