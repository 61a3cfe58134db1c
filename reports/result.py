"""What a report is made of: a comparison, an analysis, the story around them, and the latency curves behind them."""

from __future__ import annotations

from typing import Literal

import msgspec

from ..core.verdict import Outcome, Verdict
from ..experiment.result import Analysis
from ..profile.result import Comparison
from ..profile.trace.explanation import Explanations


class Story(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `story.json` says: the words around the numbers.

    `data` describes the data in one or two sentences, and `generated` says that nobody recorded it: the report then opens with a banner.
    """

    schema_version: Literal[1] = 1
    title: str
    paragraphs: tuple[str, ...] = ()
    data: str = ""
    generated: bool = False


class LatencyCurve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Empirical distribution of one model's service times on one instance: `share[i]` of `samples` requests took at most `ms[i]`."""

    instance: str
    model: str
    samples: int
    ms: tuple[float, ...]
    share: tuple[float, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a report says, whatever it is rendered to; `report.json` is this value and reads back as it."""

    schema_version: Literal[1] = 1
    kind: Literal["report"] = "report"
    comparison: Comparison | None = None
    analysis: Analysis | None = None
    story: Story | None = None
    curves: tuple[LatencyCurve, ...] = ()
    explanations: Explanations | None = None

    @property
    def title(self) -> str:
        """The story's title, else what was compared."""
        if self.story is not None:
            return self.story.title
        if self.comparison is not None:
            names = ", ".join(c.model.name for c in self.comparison.candidates)
            return f"{names} against {self.comparison.control.name}" if names else self.comparison.control.name
        return f"Experiment {self.analysis.experiment}" if self.analysis is not None else "Report"

    @property
    def verdicts(self) -> tuple[Judged, ...]:
        """One entry per treatment of the comparison, then one for the experiment."""
        judged = []
        if self.comparison is not None:
            control = self.comparison.control.name
            judged += [Judged(subject=c.model.name, against=f"against {control}", verdict=c.verdict) for c in self.comparison.candidates]
        if self.analysis is not None:
            treatments = ", ".join(a.model for a in self.analysis.arms if a.arm != self.analysis.control)
            where = f"live, experiment {self.analysis.experiment}"
            judged.append(Judged(subject=treatments or "no treatment", against=where, verdict=self.analysis.verdict))
        return tuple(judged)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and what it is about: `against` says against which control or in which experiment. None: nobody gave a budget."""

    subject: str
    against: str
    verdict: Verdict | None

    @property
    def outcome(self) -> Outcome | None:
        return None if self.verdict is None else self.verdict.outcome
