"""`optimize blend`: the door."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...console import JsonOption, StoreOption, door, progress_bar, say, write_json


@door
def blend_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The newer model: a name in the store.")],
    base: Annotated[str, typer.Option("--base", metavar="MODEL", help="The version before, of the same structure.")],
    requests: Annotated[Path | None, typer.Option("--requests", metavar="FILE", help="Labelled requests to choose the blend by.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", metavar="SHARE", help="Share of MODEL; without it the best is chosen.", min=0.0, max=1.0),
    ] = None,
    floor: Annotated[
        float, typer.Option("--floor", metavar="RATIO", help="What the worst segment must keep of the base's NDCG@10.", min=0.0, max=1.0)
    ] = 0.99,
    name: Annotated[str | None, typer.Option("--name", help="Name of the result in the store. Default: MODEL-blend.")] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Blend a fine-tuned model with the version before it in weight space, so that no segment loses; costs nothing when serving."""
    from ...core.store import Store  # noqa: PLC0415 - --help must not wait for numpy
    from ...recipes.recipe import Recipe  # noqa: PLC0415
    from ...recipes.steps import Blend  # noqa: PLC0415
    from ..apply import apply  # noqa: PLC0415
    from ..describe import result_text  # noqa: PLC0415

    step = Blend(floor=floor) if alpha is None else Blend(alpha=alpha, floor=floor)
    recipe = Recipe(name="blend", version=1, description="from the command line", steps=(step,))
    with progress_bar() as progress:
        made = apply(recipe, model, name=name, requests=requests, base=base, store=Store.of(store), progress=progress)
    say(result_text(made), json_path=json_path)
    write_json(made.manifest, json_path)
