"""`liftgate demo`: the worked case, from ratings to a report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import JsonOption, door, progress_bar, say, write_json

if TYPE_CHECKING:
    from .dataset import Dataset


class Size(StrEnum):
    """How big the demo is."""

    full = "full"
    tiny = "tiny"


DataOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", envvar="LIFTGATE_DATA", help="MovieLens folder (ratings.csv, movies.csv). Without it data is generated."),
]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes; an earlier demo there is replaced.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**31, help="Decides data, training, requests, clicks and orders.")]
ScaleOption = Annotated[Size, typer.Option(help="tiny: the same steps on a small cut, in under a minute.")]


@door
def demo(
    data: DataOption = None,
    out: OutOption = Path(".liftgate/demo"),
    seed: SeedOption = 0,
    scale: ScaleOption = Size.full,
    json_path: JsonOption = None,
) -> None:
    """Train a ranker and its fine-tuned successor, make it fast, judge it, serve both to replayed users, and write the report."""
    from .generator import generate  # noqa: PLC0415 - --help must not wait for pandas
    from .movielens import find_movielens, read_movielens  # noqa: PLC0415
    from .scale import SCALES  # noqa: PLC0415
    from .stages import Stages  # noqa: PLC0415
    from .story import STAGES, tell_story  # noqa: PLC0415 - nor for torch

    def tell(line: str) -> None:
        say(line, json_path=json_path)

    if data is None:
        tell("No data folder was given: the data is GENERATED. For real ratings give --data a folder with MovieLens csv files.")
    else:
        tell(f"MovieLens data from {find_movielens(data)}")

    def read() -> Dataset:
        return generate(seed=seed) if data is None else read_movielens(data)

    stages = Stages(STAGES, tell=tell, bar=progress_bar)
    told = tell_story(read, out, SCALES[scale.value], seed=seed, stages=stages)
    write_json(told, json_path)
    judged = "not judged" if told.judged is None else told.judged.outcome
    tell("")
    tell(f"{told.choice.name} on holdout requests: {judged}; live: {told.live.outcome}")
    tell(f"Report: {told.page}")
    tell(f"More:   LIFTGATE_STORE={out / 'store'} optimize inspect {told.choice.name}")
