"""`liftgate serve`: the split router."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import StoreOption, door


@door
def serve(
    what: Annotated[list[str], typer.Argument(metavar="EXPERIMENT | MODEL MODEL...", help="An experiment.toml, or models: control first.")],
    *,
    split: Annotated[str | None, typer.Option(metavar="W:W", help="Weights of the models, for example 90:10.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    logs: Annotated[Path, typer.Option(metavar="DIR", help="Where exposures and events are appended.")] = Path("logs"),
    trace: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Record where requests spend their time, for `profile trace --spans`.")
    ] = None,
    trace_sample: Annotated[float, typer.Option(help="Share of requests to keep; the slowest are kept anyway.", min=0, max=1)] = 0.1,
    store: StoreOption = None,
) -> None:
    """Serve the arms of an experiment behind one port until interrupted."""
    import logging  # noqa: PLC0415 - not needed for --help
    import os  # noqa: PLC0415

    from ..core.errors import InputError  # noqa: PLC0415
    from ..experiment.config import experiment_from_split, read_experiment  # noqa: PLC0415
    from .run import run_experiment  # noqa: PLC0415

    if len(what) == 1:
        if split is not None:
            raise InputError.mismatch(
                "--split", expected="at least two models", found="an experiment", fix="write the weights into experiment.toml"
            )
        experiment = read_experiment(Path(what[0]))
    else:
        if split is None:
            raise InputError.mismatch("serve", expected="--split with the models' weights", found="none", fix="for example --split 90:10")
        experiment = experiment_from_split(tuple(what), split)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not run_experiment(experiment, host=host, port=port, logs=logs, store=store, trace=trace, trace_sample=trace_sample):
        os._exit(0)  # the logs are closed; a runtime that is torn down in the middle of a hanging request aborts


def main() -> None:
    """Run `python -m liftgate.serve`."""
    typer.run(serve)
