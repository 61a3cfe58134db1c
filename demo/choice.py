"""Which candidate goes to the live test: a rule that is stated before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..core.errors import InputError
from ..core.verdict import Outcome

RULE = (
    "Rule: among the candidates that PASS the budget on validation requests, the fastest (p95 on m5.large). When none passes, the fastest "
    "of those that are UNDECIDED. When every candidate fails or could not be measured, the one that fails the fewest gates, the fastest "
    "of equals, so that the live test still has an opponent: it is served to learn, not to ship."
)


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the choice looks at: the verdict, failed gates, p95 in milliseconds on the deciding instance; NDCG@10 over everyone."""

    name: str
    outcome: Outcome
    failed_gates: int
    p95_ms: float | None
    ndcg: float | None


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The candidate that goes on, and why in one sentence."""

    name: str
    reason: str


def choose(candidates: Sequence[Facts]) -> Choice:
    """Apply RULE; a number that is unknown counts as the worst, and the first of equals wins. Raises InputError for no candidates."""
    if not candidates:
        raise InputError.mismatch("choice", expected="at least one candidate", found="none")
    for outcome in (Outcome.PASS, Outcome.UNDECIDED):
        able = [c for c in candidates if c.outcome is outcome]
        if able:
            best = min(able, key=_slowness)
            none = "" if outcome is Outcome.PASS else "no candidate passes; "
            reason = f"{none}{best.name} is the fastest of {len(able)} with verdict {outcome} out of {len(candidates)}"
            return Choice(name=best.name, reason=reason)
    best = min(candidates, key=lambda c: (c.failed_gates, _slowness(c)))
    failed = sum(c.outcome is Outcome.FAIL for c in candidates)
    how = f"{failed} of {len(candidates)} candidates FAIL and {len(candidates) - failed} could not be measured (INVALID)"
    reason = f"{how}; {best.name} fails the fewest gates ({best.failed_gates}) and is the fastest of those"
    return Choice(name=best.name, reason=f"{reason}; it is served to learn, not to ship")


def _slowness(candidate: Facts) -> float:
    return float("inf") if candidate.p95_ms is None else candidate.p95_ms
