"""The four outcomes of a gate and how they combine."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec


class Outcome(StrEnum):
    """What a gate says. UNDECIDED and INVALID are answers too: ignorance is never a PASS."""

    PASS = "PASS"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """Exit code of every gate; 2 is left to usage and configuration errors."""
        return {"PASS": 0, "FAIL": 1, "UNDECIDED": 3, "INVALID": 4}[self.value]


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gate's outcome with its reason, e.g. `latency_p95 23.1 ms [22.6, 23.9] > 20 ms on m5.large (emulated)`."""

    outcome: Outcome
    gate: str
    reason: str
    level: Literal["error", "warn"] = "error"


class Verdict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All findings and the one outcome they amount to."""

    outcome: Outcome
    findings: tuple[Finding, ...]


# One trustworthy failure decides; after that a measurement that cannot be trusted, then one that cannot tell.
_WORST_FIRST = (Outcome.FAIL, Outcome.INVALID, Outcome.UNDECIDED, Outcome.PASS)


def judge(findings: Iterable[Finding]) -> Verdict | None:
    """Conjunction of the error-level findings (a warning never changes it); None when there is nothing to judge."""
    found = tuple(findings)
    if not found:
        return None
    outcomes = {f.outcome for f in found if f.level == "error"} or {Outcome.PASS}
    return Verdict(outcome=next(o for o in _WORST_FIRST if o in outcomes), findings=found)
