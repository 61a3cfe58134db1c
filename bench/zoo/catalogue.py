"""Where the cases are, one module per package; a package is imported only when one of its cases is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from ...core.errors import UnknownName
from .case import Case

PACKAGES = {"deepctr-torch": "deepctr", "torch-rechub": "rechub", "recbole": "recbole"}


def cases_of(package: str) -> tuple[Case, ...]:
    """Every case of `package`."""
    found: tuple[Case, ...] = importlib.import_module(f".{PACKAGES[package]}", __package__).CASES
    return found


def case_of(key: str) -> Case:
    """The case with this `package/name`."""
    package = key.partition("/")[0]
    return next(case for case in cases_of(package) if case.key == key)


def select(wanted: Sequence[str]) -> tuple[Case, ...]:
    """All cases, or those whose name, package or `package/name` is in `wanted`; raises UnknownName when nothing answers to one."""
    cases = tuple(case for package in PACKAGES for case in cases_of(package))
    for name in wanted:
        if not any(name in (case.name, case.package, case.key) for case in cases):
            raise UnknownName("bench zoo", "model", name, [*PACKAGES, *(case.key for case in cases)])
    return tuple(case for case in cases if not wanted or {case.name, case.package, case.key} & set(wanted))
