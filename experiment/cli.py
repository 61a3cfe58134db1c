"""`liftgate experiment`: size an experiment before it starts, decide it when it ended."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..console import JsonOption, door, say, write_json

app = typer.Typer(help="Size an A/B test, and analyse its logs.", no_args_is_help=True)


@app.command()
@door
def analyse(
    experiment: Annotated[Path, typer.Argument(help="The experiment.toml that was served (`serve` keeps a copy beside its logs).")],
    *,
    logs: Annotated[Path, typer.Option(metavar="DIR", help="What `serve --logs` wrote.")] = Path("logs"),
    segments: Annotated[bool, typer.Option(help="Also judge each segment.")] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="RUN_DIR", help="Write analysis.json into this folder, for `liftgate report`.")
    ] = None,
    json_path: JsonOption = None,
) -> None:
    """CTR per arm with intervals clustered by user, the sample-ratio check, and a verdict (exit code 0, 1, 3 or 4)."""
    from .analyse import analyse as run  # noqa: PLC0415 - not needed for --help
    from .render import to_text  # noqa: PLC0415

    analysis = run(experiment, logs, segments=segments, command=shlex.join(["liftgate", *sys.argv[1:]]))
    if out is not None:
        write_json(analysis, str(out / "analysis.json"))
    write_json(analysis, json_path)
    say(to_text(analysis), json_path=json_path)
    raise typer.Exit(analysis.verdict.outcome.exit_code)


@app.command()
@door
def plan(
    baseline: Annotated[str, typer.Argument(help="The control's CTR, for example 2%.")],
    effect: Annotated[str, typer.Argument(help="The smallest relative effect worth seeing, for example 5%.")],
    *,
    alpha: Annotated[float, typer.Option(help="Two-sided false alarm rate.")] = 0.05,
    power: Annotated[float, typer.Option(help="Chance to see the effect when it is there.")] = 0.8,
    design_effect: Annotated[float, typer.Option(help="Variance over that of independent impressions; `analyse` reports it.")] = 1.0,
    impressions_per_user: Annotated[float, typer.Option(help="Items a user is shown during the experiment.")] = 1.0,
    json_path: JsonOption = None,
) -> None:
    """Users and impressions each arm needs."""
    from ..core.units import parse_quantity  # noqa: PLC0415 - not needed for --help
    from .plan import plan as size  # noqa: PLC0415

    found = size(
        baseline=parse_quantity(baseline, "fraction", where="BASELINE"),
        effect=parse_quantity(effect, "fraction", where="EFFECT"),
        alpha=alpha,
        power=power,
        design_effect=design_effect,
        impressions_per_user=impressions_per_user,
    )
    write_json(found, json_path)
    say(
        f"{found.impressions_per_arm:,} impressions or {found.users_per_arm:,} users per arm to see {found.baseline:.3%} become "
        f"{found.baseline * (1 + found.effect):.3%} ({found.power:.0%} power, two-sided {found.alpha:.0%}, "
        f"design effect {found.design_effect:g}, {found.impressions_per_user:g} impressions per user)",
        json_path=json_path,
    )
