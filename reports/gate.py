"""What one `profile gate` decided, as every rendering for CI needs it."""

from __future__ import annotations

import shlex
from typing import Literal

import msgspec

from ..core.verdict import Outcome, Verdict
from ..profile.result import Candidate, Comparison
from . import comparison_tables
from .block import Block, Bullets, Command, Facts, Fold, Heading, Judgement, Text
from .document import generated_banner, ordered, unsteady_sentence
from .result import Judged

Undecided = Literal["fail", "warn"]

_HELP = {
    Outcome.FAIL: (
        "FAIL: the limit is broken beyond what noise explains at the gate's alpha. Running again until it is green only hides it; "
        "for latency, profile compare --explain names the operators that make it slower."
    ),
    Outcome.UNDECIDED: (
        "UNDECIDED: neither kept nor broken for sure. Raise --seconds or --launches to what the gate's sentence asks for, run where fewer "
        "neighbours disturb, or widen the limit; --undecided warn lets it through and says so."
    ),
    Outcome.INVALID: (
        "INVALID: the machine disturbed the measurement, so it says nothing about the model. Remove the cause that is named (a CPU quota, "
        "a busy neighbour, swapping), then run again."
    ),
}


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison whose first treatment was judged; `undecided` is what UNDECIDED does to the job, `run_dir` where the raw samples are."""

    comparison: Comparison
    undecided: Undecided = "fail"
    run_dir: str = ""

    @property
    def candidate(self) -> Candidate:
        return self.comparison.candidates[0]

    @property
    def verdict(self) -> Verdict:
        if self.candidate.verdict is None:
            raise AssertionError("a budget always has gates, so there is always a verdict")
        return self.candidate.verdict

    @property
    def judged(self) -> Judged:
        return Judged(subject=self.candidate.model.name, against=f"against {self.comparison.control.name}", verdict=self.verdict)

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 UNDECIDED (0 when that only warns), 4 INVALID."""
        return self.verdict.outcome.exit_code if self.stops else 0

    @property
    def stops(self) -> bool:
        """Whether the job ends red."""
        outcome = self.verdict.outcome
        return outcome is not Outcome.PASS and not (outcome is Outcome.UNDECIDED and self.undecided == "warn")

    @property
    def command(self) -> str:
        """The gate again, exit code included; empty where no command repeats the comparison.

        What a gate measures follows from its budget, so it has no options for instances and metrics.
        """
        words = shlex.split(self.comparison.command)
        if not words:
            return ""
        dropped = {at + step for at, word in enumerate(words) if word in ("--instance", "--metric") for step in (0, 1)}
        kept = [word for at, word in enumerate(words) if at not in dropped]
        warn = ["--undecided", "warn"] if self.undecided == "warn" else []
        return shlex.join(["profile", "gate", *kept[2:], *warn])

    def advice(self) -> tuple[str, ...]:
        """What to do, one sentence per outcome that is not PASS, worst first; warnings ask for nothing."""
        found = dict.fromkeys(f.outcome for f in ordered(self.verdict.findings) if f.level == "error")
        return tuple(_HELP[outcome] for outcome in found if outcome in _HELP)

    def blocks(self) -> tuple[Block, ...]:
        """The page: verdict and one sentence per gate, what to do, the latency per instance; folded: segments, machine, command."""
        comparison = self.comparison
        banner = generated_banner(comparison)
        open_blocks: list[Block] = [Judgement(judged=self.judged)]
        if banner:
            open_blocks.append(Text(text=banner, tone="banner"))
        if self.verdict.outcome is Outcome.UNDECIDED and not self.stops:
            open_blocks.append(Text(text="UNDECIDED only warns here (--undecided warn): the job goes on.", tone="note"))
        if self.advice():
            open_blocks += [Heading(text="What to do"), Bullets(items=self.advice())]
        for instance in comparison.instances:
            open_blocks.append(Text(text=f"{instance.name} ({instance.how}), {instance.what} with 95 % intervals; {instance.note}".strip()))
            if instance.unsteady and not instance.invalid:
                open_blocks.append(Text(text=unsteady_sentence(instance), tone="note"))
            open_blocks.append(comparison_tables.summary_table(comparison, instance))
        metrics = comparison_tables.metrics_of(comparison)
        tables = tuple(comparison_tables.segment_table(comparison, metric) for metric in metrics)
        folds: list[Block] = [Fold(title="Ranking quality per segment", blocks=tables)] if tables else []
        folds.append(
            Fold(title="Machine, models and samples", blocks=(comparison_tables.models_table(comparison), Facts(pairs=self._facts())))
        )
        if self.command:
            folds.append(Fold(title="How to reproduce", blocks=(Command(text=self.command),)))
        if comparison.notes:
            folds.append(Fold(title="Notes", blocks=(Bullets(items=comparison.notes),)))
        return (*open_blocks, *folds)

    def _facts(self) -> tuple[tuple[str, str], ...]:
        samples = (("Raw samples", f"sha256 {self.comparison.samples_sha256}"),) if self.comparison.samples_sha256 else ()
        return (*comparison_tables.facts(self.comparison), *samples, *((("Run folder", self.run_dir),) if self.run_dir else ()))
