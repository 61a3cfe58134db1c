"""What `@pytest.mark.latency_budget` asks for and what the fixture `latency` found: budgets of tests, decided as the gate decides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ...core.artifact import ModelRef
from ...core.config import explain
from ...core.errors import InputError
from ...core.estimate import Estimate
from ...core.requests import Requests
from ...core.store import Store
from ...core.units import parse_quantity
from ...core.verdict import Finding, Verdict, judge
from ..budget import Budget, Conditions, Gate, Max, MaxRegress
from ..inputs import Model, load_placements, load_requests, load_subjects
from ..judge import Evidence, clear, verdict
from ..machines.instance import LOCAL
from ..measure import LAUNCHES, Run, measure
from ..result import QUANTILES
from ..sequential import paired_rounds
from ..statistics import quantile_estimate
from .in_process import HIDDEN, Call, Watch, measure_calls

Quantile = Literal["p50", "p95", "p99"]
# The median is what a short measurement can tell; a tail has to be asked for by name.
_RELATIVE: Quantile = "p50"
_OPTION = re.compile(r"--seconds (\d+)")


class LatencyMark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mark as written; limits carry their unit. `max_regress` is of the median, or `{"p95": "10%"}` names quantiles."""

    p50: str | None = None
    p95: str | None = None
    p99: str | None = None
    max_regress: str | dict[Quantile, str] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 5.0
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    undecided: Literal["fail", "skip", "pass"] | None = None
    invalid: Literal["fail", "skip"] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    @property
    def absolute(self) -> dict[str, str]:
        return {q: text for q in QUANTILES if (text := getattr(self, q)) is not None}

    @property
    def relative(self) -> dict[str, str]:
        if self.max_regress is None:
            return {}
        if isinstance(self.max_regress, str):
            return {_RELATIVE: self.max_regress}
        return {str(quantile): text for quantile, text in self.max_regress.items()}

    def gates(self, instance: str, *, relative: bool) -> tuple[Gate, ...]:
        """The limits as gates of a budget; relative ones only where there is something to compare with. Raises InputError."""
        found = [
            self._gate(q, instance, Max(value=parse_quantity(text, "ms", where=f"{_WHERE}: {q}"), text=text))
            for q, text in self.absolute.items()
        ]
        for quantile, text in self.relative.items() if relative else ():
            margin = parse_quantity(text, "fraction", where=f"{_WHERE}: max_regress")
            found.append(self._gate(quantile, instance, MaxRegress(value=margin, text=text)))
        return tuple(found)

    def _gate(self, quantile: str, instance: str, limit: Max | MaxRegress) -> Gate:
        return Gate(metric=f"latency_{quantile}", at=Conditions(instance=instance), segment=None, limit=limit, alpha=self.alpha)


_WHERE = "latency_budget"


def read_mark(positional: Sequence[object], named: Mapping[str, object]) -> LatencyMark:
    """The mark checked; raises InputError, or UnknownName with a suggestion."""
    if positional:
        found = ", ".join(map(repr, positional))
        raise InputError.mismatch(_WHERE, expected="named limits", found=found, fix='write latency_budget(p95="20 ms")')
    try:
        mark = msgspec.convert(dict(named), LatencyMark)
    except msgspec.ValidationError as error:
        raise explain(str(error), LatencyMark, _WHERE) from None
    if not mark.absolute and not mark.relative:
        raise InputError.mismatch(_WHERE, expected="one of p50, p95, p99 and max_regress", found="no limit", fix='for example p95="20 ms"')
    mark.gates(LOCAL, relative=True)  # units are checked before anything is measured
    return mark


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of the fixture measured: `quantiles_ms` of the (new) callable or model, `ratios` to what it was compared with.

    `disturbed` says what the machine did to it. Nothing is known where measuring was switched off.
    """

    name: str
    quantiles_ms: dict[str, Estimate]
    ratios: dict[str, Estimate]
    disturbed: tuple[str, ...]


class Latency:
    """The fixture: `latency(call)`, `latency.compare(base, new)` and `latency.model(name)`; the test's mark is decided when it ends."""

    def __init__(self, mark: LatencyMark | None, watch: Watch, *, measuring: bool) -> None:
        self.mark = mark
        self.measuring = measuring
        self.measured: list[Measured] = []
        self._watch = watch
        self._findings: list[Finding] = []
        self._compared = False

    def __call__(self, call: Call, *, name: str | None = None) -> Measured:
        """Time a callable without arguments."""
        __tracebackhide__ = HIDDEN
        return self._calls([name or _name(call)], [call])

    def compare(self, base: Call, new: Call, *, names: tuple[str, str] = ("base", "new")) -> Measured:
        """Time two callables in turns; absolute limits are those of `new`."""
        __tracebackhide__ = HIDDEN
        return self._calls(list(names), [base, new])

    def model(
        self,
        model: Model,
        *,
        against: Model | None = None,
        requests: Requests | Path | str | None = None,
        instance: str = LOCAL,
        store: Store | Path | str | None = None,
        threads: int | None = None,
        launches: int = LAUNCHES,
    ) -> Measured:
        """Measure a model of the store in processes of its own, as `profile gate` does; `against` is the control of relative limits."""
        __tracebackhide__ = HIDDEN
        if not self.measuring:
            return self._off(str(model))
        shelf, mark = Store.of(store), self.mark or LatencyMark()
        subjects = load_subjects([model] if against is None else [against, model], shelf)
        placement = load_placements([instance], threads)[0]
        name = placement.instance.name
        budget = Budget(source=_WHERE, gates=mark.gates(name, relative=against is not None))
        refs = [subject.ref for subject in subjects]
        asked = load_requests(requests, subjects, mark.seed)
        run = measure(
            subjects,
            asked,
            placement,
            seconds=mark.seconds,
            launches=launches,
            seed=mark.seed,
            store=shelf,
            enough=lambda so_far: bool(budget.gates) and clear(budget, [_evidence(refs, name, so_far)], Conditions(instance=name)),
        )
        return self._judge(budget, refs, name, run)

    def _calls(self, names: list[str], calls: list[Call]) -> Measured:
        __tracebackhide__ = HIDDEN
        if not self.measuring:
            for call in calls:
                call()
            return self._off(names[-1])
        mark = self.mark or LatencyMark()
        budget = Budget(source=_WHERE, gates=mark.gates(LOCAL, relative=len(calls) > 1))
        refs = [ModelRef(name=name, digest="", runtime="python", size_bytes=0) for name in names]

        def enough(so_far: Run) -> bool:
            return bool(budget.gates) and clear(budget, [_evidence(refs, LOCAL, so_far)], Conditions(instance=LOCAL))

        run = measure_calls(names, calls, seconds=mark.seconds, seed=mark.seed, watch=self._watch, enough=enough)
        return self._judge(budget, refs, LOCAL, run)

    def _judge(self, budget: Budget, refs: list[ModelRef], instance: str, run: Run) -> Measured:
        self._compared |= len(refs) > 1
        found = verdict(budget, _evidence(refs, instance, run)) if budget.gates else None
        several = "" if not self.measured else f"{refs[-1].name}: "
        for finding in found.findings if found is not None else ():
            reason = _OPTION.sub(r"seconds=\1 in the mark", finding.reason)
            self._findings.append(msgspec.structs.replace(finding, reason=several + reason))
        control, treatment = run.samples.of(0), run.samples.of(len(refs) - 1)
        ratios = {q: paired_rounds(control, treatment, p).estimate() for q, p in QUANTILES.items()} if len(refs) > 1 else {}
        quantiles = {q: quantile_estimate(treatment, p) for q, p in QUANTILES.items()}
        self.measured.append(Measured(name=refs[-1].name, quantiles_ms=quantiles, ratios=ratios, disturbed=run.invalid + run.unsteady))
        return self.measured[-1]

    def _off(self, name: str) -> Measured:
        return Measured(name=name, quantiles_ms={}, ratios={}, disturbed=())

    def verdict(self) -> Verdict | None:
        """The decision on the mark, None without one or when measuring is off; raises InputError for limits that nothing was held to."""
        if self.mark is None or not self.measuring:
            return None
        if not self.measured:
            raise InputError(_WHERE, "the test has a latency budget and measured nothing", fix="call the fixture: latency(lambda: work())")
        if self.mark.relative and not self._compared:
            raise InputError(_WHERE, "max_regress was held against nothing", fix="call latency.compare(base, new)")
        return judge(self._findings)


def _evidence(refs: Sequence[ModelRef], instance: str, run: Run) -> Evidence:
    return Evidence(control=refs[0], treatment=refs[-1], model=len(refs) - 1, runs={Conditions(instance=instance): run}, quality=())


def _name(call: object) -> str:
    name = str(getattr(call, "__name__", type(call).__name__))
    return "call" if name == "<lambda>" else name
