"""The quality floors of a budget: what a trial has to hold, and by how much it does."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ...core import columns
from ...core.artifact import ModelRef
from ...core.errors import InputError
from ...core.verdict import Verdict
from ...profile.budget import Budget, Gate, MaxDrop
from ...profile.judge import Evidence, verdict
from ...quality.evaluate import PairedPart

# How far below its floor a segment is counted that nothing is known about.
UNKNOWN_MARGIN = -1.0


class Floors(msgspec.Struct, frozen=True, kw_only=True):
    """A budget's quality gates."""

    budget: Budget

    @classmethod
    def of(cls, budget: Budget) -> Floors:
        """Raises InputError for a budget without a quality gate of level error: any model would do then."""
        gates = tuple(gate for gate in budget.gates if gate.is_quality)
        if not any(gate.level == "error" for gate in gates):
            fix = 'add one: [[gate]] metric = "ndcg@10", max_drop = "1%"'
            raise InputError.mismatch(budget.source, expected="a floor of ranking quality to search under", found="none", fix=fix)
        return cls(budget=msgspec.structs.replace(budget, gates=gates))

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.budget.quality_metrics

    def stricter(self, times: int) -> Floors:
        """The same floors for one of `times` models that are tried one after another: each gate's alpha divided by their number."""
        gates = tuple(msgspec.structs.replace(gate, alpha=gate.alpha / times) for gate in self.budget.gates)
        return Floors(budget=msgspec.structs.replace(self.budget, gates=gates))

    def verdict(self, base: ModelRef, treatment: ModelRef, parts: Sequence[PairedPart]) -> Verdict:
        """Every floor judged with its interval."""
        found = verdict(self.budget, Evidence(control=base, treatment=treatment, model=1, runs={}, quality=tuple(parts)))
        if found is None:
            raise AssertionError("there is always at least one floor")
        return found

    def margin(self, parts: Sequence[PairedPart]) -> tuple[float, str]:
        """How far the worst error-level gate is above its floor (below: negative), as a share, and that gate's name."""
        gates = [gate for gate in self.budget.gates if gate.level == "error"]
        return min((_margin(gate, parts), gate.name) for gate in gates)

    def overall(self, parts: Sequence[PairedPart]) -> PairedPart:
        """The first metric over everyone: what trials are compared by."""
        return next(part for part in parts if part.metric == self.metrics[0] and part.segment == columns.ALL_SEGMENTS)


def _margin(gate: Gate, parts: Sequence[PairedPart]) -> float:
    part = next((part for part in parts if (part.metric, part.segment) == (gate.metric, gate.segment)), None)
    if part is None:
        return UNKNOWN_MARGIN
    relative = isinstance(gate.limit, MaxDrop)
    value = part.paired.ratio.value if relative else part.paired.treatment.value
    floor = 1 - gate.limit.value if relative else gate.limit.value
    return UNKNOWN_MARGIN if value is None else value - floor
