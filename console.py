"""What every room's door shares: progress bars, `--json`, and how an error leaves the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec, TypeVar

import typer

from .core.errors import LiftgateError
from .core.progress import Progress, silent

if TYPE_CHECKING:
    from rich.console import Console

    from .core.store import Store

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="PATH", help="Write the result as JSON to PATH, '-' for standard output.")
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="DIR", help="The model store.", envvar="LIFTGATE_STORE", show_default=".liftgate")
]


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A Progress drawn on standard error while a person watches; silent in pipes and CI."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console  # noqa: PLC0415 - not needed for --help
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bar  # noqa: PLC0415

    layout = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*layout, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)  # type: ignore[arg-type]  # rich's TaskID is an int

        yield show


def open_store(path: Path | None) -> Store:
    """The store at `path`, or the usual one."""
    from .core.store import Store  # noqa: PLC0415 - not needed for --help

    return Store.of(path)


def say(text: str = "", *, json_path: str | None = None) -> None:
    """Print for people: to standard output, or to standard error when `--json -` has taken standard output."""
    typer.echo(text, err=json_path == "-")


def open_console(json_path: str | None) -> Console:
    """A console on standard output, or on standard error when `--json -` has taken standard output; wide where nobody watches."""
    from rich.console import Console  # noqa: PLC0415 - not needed for --help

    console = Console(stderr=json_path == "-", highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(stderr=json_path == "-", highlight=False, width=200)


def check_json(json_path: str | None) -> None:
    """A result that cannot be written is found out before anything is measured."""
    from .profile.run_folder import check_file  # noqa: PLC0415 - not needed for --help

    if json_path not in (None, "-"):
        check_file(Path(json_path))


def write_json(result: object, path: str | None) -> None:
    """Write a msgspec value as JSON to `path` (`-` is standard output, None writes nothing)."""
    if path is None:
        return
    import msgspec  # noqa: PLC0415 - not needed for --help

    from .core.files import write_atomically  # noqa: PLC0415

    body = msgspec.json.format(msgspec.json.encode(result), indent=2)
    if path == "-":
        typer.echo(body.decode())
    else:
        write_atomically(Path(path), body + b"\n")


def door(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command: one of our errors becomes one line on standard error and exit code 2, never a traceback."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except LiftgateError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except BrokenPipeError:
            # The reader of our output left (`| head`); the interpreter must not complain about it again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return guarded
