"""The decision functions alone, on real noise: repeated runs of identical benchmarks on cloud machines (Azure VM Noise Dataset 2024).

Base and candidate are drawn from consecutive runs on one machine, dealt at random within every round, so that the truth is known: they are
equal, or the candidate's times are multiplied by a known factor. That tests the decisions, not the measuring: real rounds are dealt by the
machine. What peers do with the same runs stands beside: the first half is the base and the second the candidate, compared by a bare ratio
with a threshold or by the Mann-Whitney test; and a base measured on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from ...core.verdict import Outcome
from ...profile.sequential import direction, paired_rounds, relative_gate
from ...profile.statistics import absolute_gate

Floats = npt.NDArray[np.float64]
Blocks = list[list[npt.NDArray[np.int64]]]

LAUNCHES, ROUNDS, BLOCK = 8, 8, 4
RUNS = LAUNCHES * ROUNDS * BLOCK * 2
ALPHA = 0.05
FOLDER = "azure-vm-noise"
_QUESTIONS = (
    "equal: FAIL at 5 %",
    "equal: FAIL at 0 %",
    "equal: called slower",
    "+5 %: FAIL at 5 %",
    "+5 %: PASS at 5 %",
    "equal: PASS at 5 %",
    "+5 %: FAIL at 2 %",
    "+10 %: FAIL at 5 %",
    "bare ratio of two runs > 5 %, equal",
    "bare ratio of medians > 5 %, equal",
    "Mann-Whitney, equal",
)


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """All runs of one benchmark on one long-lived machine in time order: float64 times `[runs]`, in any unit."""

    name: str
    times: Floats


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison: `paired` by round on one machine, and the same number of runs one after the other."""

    control: Blocks
    treatment: Blocks
    first: Floats
    second: Floats


def read(folder: Path) -> list[Series]:
    """Every series with enough runs for a comparison; rates become times."""
    found = []
    for file in sorted((folder / FOLDER).glob("*__long__*.csv")):
        table = pd.read_csv(file, parse_dates=["starttime"]).sort_values("starttime")
        benchmark, region = file.name.split("__")[0], file.name.split("__")[-3]
        for machine, runs in table.groupby("VM_id"):
            values = runs["value"].to_numpy(dtype=np.float64)
            times = 1 / values if "Per_Second" in file.name else values
            if len(times) >= RUNS:
                found.append(Series(name=f"{benchmark} {region} VM {machine}", times=times))
    return found


def draw(series: Series, factor: float, rng: np.random.Generator) -> Drawn:
    """Runs from a place drawn anew; `factor` multiplies the candidate's."""
    begin = int(rng.integers(0, len(series.times) - RUNS + 1))
    runs = series.times[begin : begin + RUNS].reshape(LAUNCHES, ROUNDS, 2 * BLOCK)
    # Nanosecond-like integers with enough digits: the decision functions take what a clock gives.
    scaled = np.round(runs / np.median(series.times) * 1e9)
    control: Blocks = []
    treatment: Blocks = []
    for launch in scaled:
        dealt = [rng.permutation(block) for block in launch]
        control.append([block[:BLOCK].astype(np.int64) for block in dealt])
        treatment.append([(block[BLOCK:] * factor).astype(np.int64) for block in dealt])
    flat = scaled.reshape(-1)
    return Drawn(control=control, treatment=treatment, first=flat[: RUNS // 2], second=flat[RUNS // 2 :] * factor)


def relative(drawn: Drawn, margin: float) -> Outcome:
    """Our gate on the median."""
    return relative_gate(paired_rounds(drawn.control, drawn.treatment, 0.5), margin, ALPHA).outcome


def slower(drawn: Drawn) -> bool:
    """Our word for a difference without a margin."""
    return direction(paired_rounds(drawn.control, drawn.treatment, 0.5)) == "slower"


def threshold(first: Floats, second: Floats, margin: float) -> bool:
    """What peers do: base first, candidate afterwards, alarm when the ratio of medians is over the margin."""
    return bool(np.median(second) / np.median(first) > 1 + margin)


def mann_whitney(drawn: Drawn) -> bool:
    """Base first, candidate afterwards, alarm when the rank test says slower at 5 %."""
    return bool(stats.mannwhitneyu(drawn.second, drawn.first, alternative="greater").pvalue < ALPHA)


def rates(series: Sequence[Series], comparisons: int, seed: int = 0) -> list[str]:
    """Markdown: per benchmark, false alarms of equal models and found slow-downs, ours and peers'."""
    rng = np.random.default_rng(seed)
    lines = [
        f"{comparisons} comparisons per machine, each {LAUNCHES} stretches of {ROUNDS} rounds of {BLOCK} + {BLOCK} runs; alpha {ALPHA:g}",
        "",
        f"| machine | {' | '.join(_QUESTIONS)} |",
        f"|---|{'---|' * len(_QUESTIONS)}",
    ]
    total = np.zeros(len(_QUESTIONS))
    for one in series:
        counts = np.zeros(len(_QUESTIONS))
        for _ in range(comparisons):
            equal, five, ten = draw(one, 1.0, rng), draw(one, 1.05, rng), draw(one, 1.1, rng)
            at_five, boundary = relative(equal, 0.05), relative(five, 0.05)
            counts += (
                at_five is Outcome.FAIL,
                relative(equal, 0.0) is Outcome.FAIL,
                slower(equal),
                boundary is Outcome.FAIL,
                boundary is Outcome.PASS,
                at_five is Outcome.PASS,
                relative(five, 0.02) is Outcome.FAIL,
                relative(ten, 0.05) is Outcome.FAIL,
                threshold(equal.first[:1], equal.second[:1], 0.05),
                threshold(equal.first, equal.second, 0.05),
                mann_whitney(equal),
            )
        total += counts
        lines.append(_row(one.name, counts / comparisons))
    lines.append(_row(f"**all {len(series)}**", total / comparisons / len(series)))
    return lines


def absolute_rates(series: Sequence[Series], comparisons: int, seed: int = 1) -> list[str]:
    """Markdown: the absolute gate with its limit exactly at a machine's own quantile over all time, where every decision is wrong."""
    rng = np.random.default_rng(seed)
    lines = ["| limit at the machine's own | false PASS | false FAIL | undecided |", "|---|---|---|---|"]
    for p in (0.5, 0.9, 0.95):
        counts = dict.fromkeys(Outcome, 0)
        for one in series:
            limit_ns = float(np.quantile(one.times / np.median(one.times), p)) * 1e9
            for _ in range(comparisons):
                counts[absolute_gate(stretches(one, rng), p, limit_ns / 1e6, ALPHA).outcome] += 1
        of = comparisons * len(series)
        shares = " | ".join(f"{counts[outcome] / of:.1%}" for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.UNDECIDED))
        lines.append(f"| p{100 * p:g} | {shares} |")
    return lines


def stretches(series: Series, rng: np.random.Generator) -> Blocks:
    """Eight stretches of 64 consecutive runs from places drawn anew, each in eight blocks: a launch each."""
    begins = rng.integers(0, len(series.times) - 64 + 1, LAUNCHES)
    scaled = np.round(series.times / np.median(series.times) * 1e9).astype(np.int64)
    return [list(scaled[begin : begin + 64].reshape(8, 8)) for begin in begins]


def across_machines(folder: Path, comparisons: int, seed: int = 2) -> list[str]:
    """Markdown: how often a bare ratio is an alarm when base and candidate ran on different machines of one type."""
    rng = np.random.default_rng(seed)
    lines = ["| benchmark | ratio > 5 % | ratio > 10 % |", "|---|---|---|"]
    for file in sorted((folder / FOLDER).glob("*__short__*.csv")):
        values = pd.read_csv(file)["value"].to_numpy(dtype=np.float64)
        times = 1 / values if "Per_Second" in file.name else values
        ratios = rng.choice(times, comparisons) / rng.choice(times, comparisons)
        benchmark, region = file.name.split("__")[0], file.name.split("__")[-3]
        lines.append(f"| {benchmark} {region} | {(ratios > 1.05).mean():.1%} | {(ratios > 1.1).mean():.1%} |")
    return lines


def _row(name: str, shares: Floats) -> str:
    return f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |"


def run(folder: Path, comparisons: int = 200) -> list[str]:
    """All tables."""
    series = read(folder)
    parts: list[Callable[[], list[str]]] = [
        lambda: rates(series, comparisons),
        lambda: absolute_rates(series, comparisons),
        lambda: across_machines(folder, 20_000),
    ]
    return [line for part in parts for line in [*part(), ""]]
