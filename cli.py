"""The front door: `liftgate`, and its two halves that people type most, `optimize` and `profile`."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from .demo.cli import demo as demo_command
from .experiment.cli import app as experiment_app
from .optimize.cli import app as optimize_app
from .profile.cli import app as profile_app
from .reports.cli import report as report_command
from .serve.cli import serve as serve_command

app = typer.Typer(
    name="liftgate",
    help="Decides whether a fine-tuned recommender deserves to ship, and makes it deserve it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(optimize_app, name="optimize")
app.add_typer(profile_app, name="profile")
app.add_typer(experiment_app, name="experiment")
app.command("serve")(serve_command)
app.command("report")(report_command)
app.command("demo")(demo_command)


def show_version(wanted: bool) -> None:
    """Print the version and exit, when that is wanted."""
    if wanted:
        typer.echo(f"liftgate {metadata.version('liftgate')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Decides whether a fine-tuned recommender deserves to ship, and makes it deserve it."""


def main() -> None:
    """Run `liftgate`."""
    app()


def optimize_main() -> None:
    """Run `optimize`."""
    optimize_app(prog_name="optimize")


def profile_main() -> None:
    """Run `profile`."""
    profile_app(prog_name="profile")
