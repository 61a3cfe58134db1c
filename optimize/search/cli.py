"""`optimize search`: the door."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ...console import JsonOption, StoreOption, door, progress_bar, say, write_json


@door
def search_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to make faster: a name in the store.")],
    base: Annotated[str, typer.Option("--base", metavar="MODEL", help="The version before, which floors of quality are relative to.")],
    requests: Annotated[Path, typer.Option("--requests", metavar="FILE", help="Labelled requests to choose by; steps learn from them.")],
    gate_requests: Annotated[Path, typer.Option("--gate-requests", metavar="FILE", help="Other labelled requests, to judge the choice.")],
    budget: Annotated[Path, typer.Option("--budget", metavar="FILE", help="budget.toml with at least one floor of quality.")],
    time: Annotated[str, typer.Option("--time", metavar="TIME", help="About how long to search: 90s, 10m, 1h.")] = "10m",
    trials: Annotated[int | None, typer.Option("--trials", metavar="N", help="At most this many trials.", min=1)] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads that compute one request.", min=1)] = 1,
    runtimes: Annotated[str, typer.Option("--runtimes", metavar="A,B", help="onnxruntime, openvino.")] = "onnxruntime",
    name: Annotated[str | None, typer.Option("--name", help="Name of the result in the store. Default: MODEL-best.")] = None,
    recipe_out: Annotated[
        Path | None, typer.Option("--recipe-out", metavar="FILE", help="Write the winner's recipe, for `optimize apply`.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of proposals, samples and resampling.", min=0)] = 0,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Search steps and runtimes for the fastest model that holds a budget. Exits 0 when it PASSES, 1 when none does, 3 UNDECIDED.

    The same command goes on where it was when it was interrupted, and --time counts what was spent before.
    """
    from ...core.files import write_atomically  # noqa: PLC0415 - --help must not wait for numpy
    from ...core.store import Store  # noqa: PLC0415
    from ...recipes.recipe import recipe_text  # noqa: PLC0415
    from .render import search_text  # noqa: PLC0415
    from .search import search  # noqa: PLC0415

    with progress_bar() as progress:
        found = search(
            model,
            base=base,
            requests=requests,
            gate_requests=gate_requests,
            budget=budget,
            seconds=_seconds(time),
            trials=trials,
            threads=threads,
            runtimes=[part.strip() for part in runtimes.split(",") if part.strip()],
            name=name,
            seed=seed,
            store=Store.of(store),
            progress=progress,
            tell=lambda line: typer.echo(line, err=True),
        )
    say(search_text(found, min(160, shutil.get_terminal_size((160, 24)).columns)), json_path=json_path)
    if recipe_out is not None and found.recipe is not None:
        write_atomically(recipe_out, recipe_text(found.recipe))
        say(f"recipe: {recipe_out}", json_path=json_path)
    write_json(found, json_path)
    raise typer.Exit(found.outcome.exit_code)


def _seconds(text: str) -> float:
    """`90s`, `10m`, `1h`, and `90` for seconds."""
    from ...core.errors import InputError  # noqa: PLC0415

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    if match is None:
        raise InputError.mismatch("--time", expected="a time such as 90s, 10m or 1h", found=repr(text))
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}.get(match[2] or "s", 1)
