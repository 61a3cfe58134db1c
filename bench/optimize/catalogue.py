"""Every case; imports packages that only the zoo's environment has."""

from __future__ import annotations

from .case import Case
from .rankers import deepctr, demo, rechub

CASES: dict[str, Case] = {case.name: case for case in (*deepctr.CASES, *rechub.CASES, *demo.CASES)}
