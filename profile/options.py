"""Options that several doors of this room share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = "A name in the store, an artifact folder, or a torch.export archive."
ControlArgument = Annotated[str, typer.Argument(metavar="CONTROL", help=MODEL_HELP)]
RequestsOption = Annotated[
    Path | None, typer.Option("--requests", metavar="FILE", help="requests.parquet; without it requests are generated from the signature.")
]
InstanceOption = Annotated[str, typer.Option("--instance", metavar="NAME", help="See `profile instances`.")]
LaunchesOption = Annotated[int, typer.Option("--launches", help="Fresh processes per model.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of orders, samples, arrivals and resampling.", min=0)]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", help="Default: one per core of the instance; fewer extrapolate one with more cores than here.", min=1),
]
