"""The doors `profile load`, `profile sweep` and `profile coldstart`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...console import JsonOption, StoreOption, check_json, door, open_console, open_store, progress_bar, say, write_json
from ..options import InstanceOption, LaunchesOption, RequestsOption, SeedOption, ThreadsOption

ModelsArgument = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Names in the store, artifact folders, or torch.export archives; the base first.")
]
RateOption = Annotated[float | None, typer.Option("--rate", help="Mean requests per second; with --trace, time is scaled to it.")]
TraceOption = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Arrival times to replay: CSV or Parquet.")]
TraceColumnOption = Annotated[str | None, typer.Option("--trace-column", metavar="NAME", help="Default: timestamp, time or the like.")]
ServersOption = Annotated[int, typer.Option("--servers", help="Threads that answer requests of one queue.", min=1)]
PerRequestOption = Annotated[int | None, typer.Option("--threads", help="Threads per request. Default: the cores over the servers.", min=1)]
BatchOption = Annotated[
    str | None, typer.Option("--batch", metavar="1,4,16", help="Requests per call: time per call and requests per second of each size.")
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the result and every timed request there.")]


@door
def load_command(
    models: ModelsArgument,
    rate: RateOption = None,
    trace: TraceOption = None,
    trace_column: TraceColumnOption = None,
    requests: RequestsOption = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TEXT|FILE", help='Limits such as "p95 20 ms", or a budget.toml.')
    ] = None,
    instance: InstanceOption = "local",
    servers: ServersOption = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="About how long each model is loaded, over all launches.")] = 20.0,
    launches: LaunchesOption = 5,
    seed: SeedOption = 0,
    threads: PerRequestOption = None,
    out: OutOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Latency under open-loop load: requests come at random or as recorded, and wait when the model is busy."""
    from ..arrivals import arrivals_of  # noqa: PLC0415 - --help must not wait for pyarrow and scipy
    from .files import write_load  # noqa: PLC0415
    from .load import load  # noqa: PLC0415
    from .view import load_view  # noqa: PLC0415

    check_json(json_path)
    _check_out(out)
    with progress_bar() as progress:
        run = load(
            models,
            arrivals_of(rate, trace, trace_column),
            requests=requests,
            budget=budget,
            instance=instance,
            servers=servers,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(load_view(run.result))
    if out is not None:
        write_load(out, run)
        say(f"\nresult and every timed request: {out}", json_path=json_path)
    write_json(run.result, json_path)


@door
def sweep_command(
    models: ModelsArgument,
    budget: Annotated[str, typer.Option("--budget", metavar="TEXT|FILE", help='Limits such as "p95 20 ms", or a budget.toml.')],
    trace: TraceOption = None,
    trace_column: TraceColumnOption = None,
    requests: RequestsOption = None,
    instance: InstanceOption = "local",
    servers: ServersOption = 1,
    seconds: Annotated[float, typer.Option("--seconds", help="At most about this long is each model loaded.")] = 60.0,
    seed: SeedOption = 0,
    threads: PerRequestOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the result and a plot there.")] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """The highest rate at which a model keeps its latency limits, and what a million requests cost there."""
    from ...core.files import write_atomically  # noqa: PLC0415 - --help must not wait for pyarrow and scipy
    from ...reports.sweep_figure import sweep_svg  # noqa: PLC0415
    from ..arrivals import arrivals_of  # noqa: PLC0415
    from .files import PLOT_FILE, SWEEP_FILE, write_result  # noqa: PLC0415
    from .sweep import sweep  # noqa: PLC0415
    from .view import sweep_view  # noqa: PLC0415

    check_json(json_path)
    _check_out(out)
    with progress_bar() as progress:
        found = sweep(
            models,
            budget,
            arrivals=None if trace is None else arrivals_of(None, trace, trace_column),
            requests=requests,
            instance=instance,
            servers=servers,
            seconds=seconds,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(sweep_view(found))
    if out is not None:
        write_result(out / SWEEP_FILE, found)
        write_atomically(out / PLOT_FILE, sweep_svg(found))
        say(f"\nresult: {out / SWEEP_FILE}\nplot: {out / PLOT_FILE}", json_path=json_path)
    write_json(found, json_path)


@door
def coldstart_command(
    models: ModelsArgument,
    launches: LaunchesOption = 10,
    cold_cache: Annotated[
        bool, typer.Option("--cold-cache", help="Put the model's files out of the page cache before every start (needs no root).")
    ] = False,
    requests: RequestsOption = None,
    instance: InstanceOption = "local",
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write the result there.")] = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """What the first requests of a fresh process wait for: import, load, first answer, and until answers are steady."""
    from .coldstart import coldstart  # noqa: PLC0415 - --help must not wait for pyarrow and scipy
    from .files import COLDSTART_FILE, write_result  # noqa: PLC0415
    from .view import coldstart_view  # noqa: PLC0415

    check_json(json_path)
    _check_out(out)
    with progress_bar() as progress:
        found = coldstart(
            models,
            requests=requests,
            instance=instance,
            launches=launches,
            cold_cache=cold_cache,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(coldstart_view(found))
    if out is not None:
        write_result(out / COLDSTART_FILE, found)
        say(f"\nresult: {out / COLDSTART_FILE}", json_path=json_path)
    write_json(found, json_path)


def run_batches(
    model: str,
    batch: str,
    *,
    requests: Path | None,
    instance: str,
    seconds: float,
    launches: int,
    seed: int,
    threads: int | None,
    store: Path | None,
    json_path: str | None,
) -> None:
    """What `profile run --batch` does."""
    from .batches import batches, parse_sizes  # noqa: PLC0415 - --help must not wait for pyarrow and scipy
    from .view import batches_view  # noqa: PLC0415

    check_json(json_path)
    with progress_bar() as progress:
        found = batches(
            model,
            parse_sizes(batch),
            requests=requests,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(batches_view(found))
    write_json(found, json_path)


def _check_out(out: Path | None) -> None:
    from ..run_folder import check_folder  # noqa: PLC0415

    if out is not None:
        check_folder(out)
