"""The pair of models that peers compare, and how their alarms are counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
from scipy import stats

from ....core.artifact import read_artifact
from ....core.requests import Requests
from ...environment import CHECKOUT, python
from ..neighbour import WORDS, Kind, neighbour

HERE = Path(__file__).parent
SCRIPTS = HERE / "scripts"
HEADING = ("| tool and rule | true change | neighbour | alarms | comparisons | share [95 %] |", "|---|---|---|---|---|---|")
# What starting processes costs beside measuring, at most: the neighbour must not end before the comparison does.
_OVERHEAD_S = 90.0


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A model and its requests as files; the candidate is the same model, slower by `delay_share`.

    `seconds` is what a comparison measures in all, half of it for each side. Everything runs on `cpu`, the peers' own parents aside.
    """

    model: Path
    feeds: Path
    folder: Path
    delay_share: float
    seconds: float
    cpu: int


def interpreter() -> Path:
    """The environment with both peers."""
    requirements = HERE / "requirements.txt"
    return python("PEERS_MEASURE_PYTHON", CHECKOUT / ".venv-peers-measure", requirements.read_bytes(), [["-r", str(requirements)]])


@contextmanager
def measured_pair(
    model: Path, requests: Requests, *, delay_share: float, repeats: int, seconds: float, beside: Kind | None
) -> Iterator[Pair]:
    """The files of a pair, with the neighbour running; `model` is an artifact's folder."""
    artifact = read_artifact(model)
    signature = artifact.manifest.signature
    with TemporaryDirectory(prefix="liftgate-peers-") as name:
        folder = Path(name)
        (folder / "feeds").mkdir()
        for number, feed in enumerate(requests.restrict(signature).feeds(signature)):
            np.savez(folder / "feeds" / f"{number:05}.npz", allow_pickle=False, **feed)
        pair = Pair(
            model=artifact.model_path.absolute(),
            feeds=folder / "feeds",
            folder=folder,
            delay_share=delay_share,
            seconds=seconds,
            cpu=min(os.sched_getaffinity(0)),
        )
        at_most_s = repeats * (seconds + _OVERHEAD_S)
        with nullcontext() if beside is None else neighbour(beside, measured=(pair.cpu,), at_most_s=at_most_s):
            yield pair


def rows(tool: str, rules: Sequence[str], alarms: Counter[str], *, pair: Pair, repeats: int, beside: Kind | None) -> list[str]:
    """Lines of a Markdown table, with Clopper-Pearson intervals."""
    change = "none" if pair.delay_share == 0 else f"{pair.delay_share:+.0%}"
    company = "none" if beside is None else WORDS[beside]
    lines = []
    for rule in rules:
        interval = stats.binomtest(alarms[rule], repeats).proportion_ci(0.95, "exact")
        share = f"{alarms[rule] / repeats:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
        lines.append(f"| {tool} `{rule}` | {change} | {company} | {alarms[rule]} | {repeats} | {share} |")
    return lines
