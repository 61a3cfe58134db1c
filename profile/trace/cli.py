"""The doors `profile flame`, `profile trace` and `profile explain`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import JsonOption, StoreOption, check_json, door, open_console, open_store, progress_bar, say, write_json
from ..options import MODEL_HELP, ControlArgument, InstanceOption, RequestsOption, SeedOption, ThreadsOption

if TYPE_CHECKING:
    from ...core.store import Store
    from .explanation import Explanation

ModelArgument = Annotated[str | None, typer.Argument(metavar="[MODEL]", help=f"{MODEL_HELP} Or none, with --pid.", show_default=False)]
_EXPLAIN_S, _EXPLAIN_LAUNCHES = 12.0, 4
PidOption = Annotated[int | None, typer.Option("--pid", metavar="PID", help="A running `liftgate serve`, instead of a model.", min=1)]
NativeOption = Annotated[bool, typer.Option("--native/--python-only", help="Show the runtime's own frames, not only Python's.")]


@door
def flame_command(
    model: ModelArgument = None,
    pid: PidOption = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help=".svg, .speedscope.json, or .txt (raw stacks, for grep and flamegraph.pl).")
    ] = Path("flame.svg"),
    requests: RequestsOption = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to sample.")] = 10.0,
    native: NativeOption = True,
    idle: Annotated[bool, typer.Option("--idle", help="Count threads that wait as well.")] = False,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
) -> None:
    """Draw where a model's time goes while it answers requests, or a running router's while it serves (py-spy)."""
    from .flame import flame, flame_served  # noqa: PLC0415 - --help must not wait for pyarrow and scipy

    _one_of(model, pid, where="profile flame")
    with progress_bar() as progress:
        if pid is not None:
            _unused_with_pid(requests, threads)
            found = flame_served(pid, out, seconds=seconds, native=native, idle=idle, progress=progress)
        else:
            found = flame(
                str(model),
                out,
                requests=requests,
                seconds=seconds,
                native=native,
                idle=idle,
                threads=threads,
                seed=seed,
                store=open_store(store),
                progress=progress,
            )
    for note in found.notes:
        say(f"note: {note}")
    opened = {".svg": "; open it in a browser", ".json": "; open it at https://www.speedscope.app"}.get(found.path.suffix, "")
    say(f"wrote {found.path} ({found.samples:,} samples){opened}")


@door
def trace_command(
    model: ModelArgument = None,
    pid: PidOption = None,
    spans: Annotated[
        Path | None, typer.Option("--spans", metavar="DIR|FILE", help="What `liftgate serve … --trace DIR` recorded; alone or with --pid.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A Chrome trace, for Perfetto.")] = Path("trace.json"),
    requests: RequestsOption = None,
    seconds: Annotated[float, typer.Option("--seconds", help="How long to trace.")] = 5.0,
    stacks: Annotated[bool, typer.Option("--stacks/--no-stacks", help="Add py-spy's stacks.")] = True,
    native: NativeOption = True,
    threads: ThreadsOption = None,
    seed: SeedOption = 0,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Trace requests: spans, the runtime's node times and stacks on one time line, and tables of what takes longest."""
    from .served import trace_served  # noqa: PLC0415
    from .trace import trace  # noqa: PLC0415
    from .view import service_view, traced_view  # noqa: PLC0415

    check_json(json_path)
    _one_of(model, pid if pid is not None else spans, where="profile trace")
    if model is None:
        _unused_with_pid(requests, threads)
        with progress_bar() as progress:
            served = trace_served(out, pid=pid, spans=spans, seconds=seconds, native=native, progress=progress)
        open_console(json_path).print(service_view(served))
        write_json(served, json_path)
        return
    with progress_bar() as progress:
        traced = trace(
            model,
            out,
            requests=requests,
            seconds=seconds,
            stacks=stacks,
            native=native,
            threads=threads,
            seed=seed,
            store=open_store(store),
            progress=progress,
        )
    open_console(json_path).print(traced_view(traced))
    write_json(traced, json_path)


@door
def explain_command(
    control: ControlArgument,
    treatment: Annotated[str, typer.Argument(metavar="TREATMENT", help=MODEL_HELP)],
    requests: RequestsOption = None,
    instance: InstanceOption = "local",
    seconds: Annotated[float, typer.Option("--seconds", help="About how long to measure, over all launches.")] = _EXPLAIN_S,
    launches: Annotated[int, typer.Option("--launches", help="Fresh processes per model, with and without profiler.")] = _EXPLAIN_LAUNCHES,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write explanation.json there, for `liftgate report`.")] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Name the operators that make one model slower than another. Nothing is judged: a profiler slows models down."""
    from ..run_folder import check_folder  # noqa: PLC0415
    from .explain import explain  # noqa: PLC0415
    from .explain_view import explanation_view  # noqa: PLC0415
    from .explanation import Explanations  # noqa: PLC0415

    check_json(json_path)
    if out is not None:
        check_folder(out)
    with progress_bar() as progress:
        found = explain(
            control,
            treatment,
            requests=requests,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            threads=threads,
            store=open_store(store),
            progress=progress,
        )
    open_console(json_path).print(explanation_view(found))
    _write_explanations([found], out)
    write_json(Explanations(explanations=(found,)), json_path)


def explain_treatments(
    control: str,
    treatments: list[str],
    folder: Path,
    *,
    requests: Path | None,
    instance: str,
    seconds: float,
    launches: int,
    seed: int,
    threads: int | None,
    store: Store,
    json_path: str | None,
) -> None:
    """`profile compare --explain`: after the comparison and beside it, into the folder of the run."""
    from ...core.errors import InputError  # noqa: PLC0415
    from .explain import explain  # noqa: PLC0415
    from .explain_view import explanation_view  # noqa: PLC0415

    found = []
    for treatment in treatments:
        try:
            with progress_bar() as progress:
                one = explain(
                    control,
                    treatment,
                    requests=requests,
                    instance=instance,
                    seconds=min(seconds, _EXPLAIN_S),
                    launches=min(launches, _EXPLAIN_LAUNCHES),
                    seed=seed,
                    threads=threads,
                    store=store,
                    progress=progress,
                )
        except InputError as error:  # the comparison stands all the same
            say(f"\n{treatment} is not explained: {error}", json_path=json_path)
            continue
        found.append(one)
        say(json_path=json_path)
        open_console(json_path).print(explanation_view(one))
    _write_explanations(found, folder if found else None)


def _write_explanations(found: list[Explanation], folder: Path | None) -> None:
    if folder is None:
        return
    from ..run_folder import EXPLANATION_FILE  # noqa: PLC0415
    from .explanation import Explanations  # noqa: PLC0415

    write_json(Explanations(explanations=tuple(found)), str(folder / EXPLANATION_FILE))


def _one_of(model: str | None, other: object, *, where: str) -> None:
    from ...core.errors import InputError  # noqa: PLC0415

    if (model is None) == (other is None):
        found = "neither" if model is None else "both"
        raise InputError.mismatch(where, expected="a model, or the --pid of a running process", found=found)


def _unused_with_pid(requests: Path | None, threads: int | None) -> None:
    from ...core.errors import InputError  # noqa: PLC0415

    for option, value in (("--requests", requests), ("--threads", threads)):
        if value is not None:
            raise InputError.mismatch(option, expected="a model to ask", found="a process that serves", fix="leave it out")
