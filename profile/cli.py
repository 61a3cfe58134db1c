"""`profile`: measure models side by side, and judge them by a budget."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import JsonOption, StoreOption, check_json, door, open_console, open_store, progress_bar, say, write_json
from .ci import cli as ci
from .load import cli as load
from .mlperf import cli as mlperf_cli
from .options import MODEL_HELP, ControlArgument, InstanceOption, LaunchesOption, RequestsOption, SeedOption, ThreadsOption
from .trace import cli as trace

if TYPE_CHECKING:
    from ..core.store import Store
    from .result import Comparison

app = typer.Typer(
    name="profile",
    help="Measure models side by side and judge them by a budget.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

BudgetOption = Annotated[Path | None, typer.Option("--budget", metavar="FILE", help="budget.toml; without it nothing is judged.")]
InstancesOption = Annotated[list[str] | None, typer.Option("--instance", metavar="NAME", help="Repeatable. Default: local.")]
MetricOption = Annotated[list[str] | None, typer.Option("--metric", metavar="NAME", help="Repeatable. Default: ndcg@10 and auc.")]
SecondsOption = Annotated[float, typer.Option("--seconds", help="Longest time to measure on each instance, without starting processes.")]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where results go. Default: in the store.")]


class Undecided(StrEnum):
    """What an undecided gate does to the exit code."""

    fail = "fail"
    warn = "warn"


@app.command("compare")
@door
def compare_command(
    control: ControlArgument,
    treatments: Annotated[list[str], typer.Argument(metavar="TREATMENT...", help="One or more models to compare with it.")],
    requests: RequestsOption = None,
    budget: BudgetOption = None,
    instance: InstancesOption = None,
    metric: MetricOption = None,
    seconds: SecondsOption = 20.0,
    launches: LaunchesOption = 8,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Then name the operators that make a treatment slower, from runs under a profiler.")
    ] = False,
    out: OutOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Compare treatments with a control: latency, quality, and the verdict of a budget. Exits 0 whatever the verdict."""
    from .compare import compare  # noqa: PLC0415 - --help must not wait for pyarrow and scipy

    check_json(json_path)
    shelf = open_store(store)
    folder = out or _run_folder(shelf, control, treatments[0])
    with progress_bar() as progress:
        result = compare(
            control,
            *treatments,
            requests=requests,
            budget=budget,
            instances=tuple(instance or ("local",)),
            metrics=tuple(metric or ("ndcg@10", "auc")),
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=shelf,
            run_dir=folder,
            threads=threads,
            progress=progress,
        )
    _show(result, folder, json_path)
    if explain:  # when everything is measured and judged: a profiled run feeds no gate
        trace.explain_treatments(
            control,
            treatments,
            folder,
            requests=requests,
            instance=result.instances[0].instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            threads=threads,
            store=shelf,
            json_path=json_path,
        )


@app.command("gate")
@door
def gate_command(
    control: ControlArgument,
    treatment: Annotated[str, typer.Argument(metavar="TREATMENT", help=MODEL_HELP)],
    budget: Annotated[Path, typer.Option("--budget", metavar="FILE", help="budget.toml.")],
    requests: RequestsOption = None,
    undecided: Annotated[Undecided, typer.Option("--undecided", help="Exit with 3 (fail) or 0 (warn).")] = Undecided.fail,
    seconds: SecondsOption = 20.0,
    launches: LaunchesOption = 8,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    junit: ci.JunitOption = None,
    summary: ci.SummaryOption = None,
    annotations: ci.AnnotationsOption = False,
    comment: ci.CommentOption = None,
    comment_key: ci.CommentKeyOption = "gate",
    trend: ci.TrendOption = None,
    out: OutOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Decide for CI whether a treatment may ship. Exits 0 PASS, 1 FAIL, 3 UNDECIDED, 4 INVALID, 2 wrong usage."""
    from ..reports.gate import GateResult  # noqa: PLC0415
    from .budget import read_budget  # noqa: PLC0415
    from .compare import compare  # noqa: PLC0415

    check_json(json_path)
    outputs = ci.wanted_outputs(
        junit=junit, summary=summary, annotations=annotations, comment=comment, comment_key=comment_key, trend=trend
    )
    shelf = open_store(store)
    folder = out or _run_folder(shelf, control, treatment)
    judged = read_budget(budget)
    with progress_bar() as progress:
        result = compare(
            control,
            treatment,
            requests=requests,
            budget=budget,
            # Only what the gates need: without a latency gate there is nothing to measure but `local`.
            instances=() if judged.conditions else ("local",),
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=shelf,
            run_dir=folder,
            threads=threads,
            progress=progress,
        )
    _show(result, folder, json_path)
    gate = GateResult(comparison=result, undecided=undecided.value, run_dir=str(folder))
    ci.publish(gate, outputs, budget=budget, json_path=json_path)
    raise typer.Exit(gate.exit_code)


@app.command("run")
@door
def run_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    instance: InstanceOption = "local",
    requests: RequestsOption = None,
    seconds: SecondsOption = 20.0,
    launches: LaunchesOption = 8,
    seed: SeedOption = 0,
    batch: load.BatchOption = None,
    threads: ThreadsOption = None,
    mlperf: mlperf_cli.MlperfOption = False,
    rate: mlperf_cli.RateOption = None,
    budget: mlperf_cli.LimitOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Measure one model on one instance."""
    mlperf_cli.check_options(mlperf, rate, budget, batch)
    if batch is not None:
        load.run_batches(
            model,
            batch,
            requests=requests,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            threads=threads,
            store=store,
            json_path=json_path,
        )
        return
    from rich.console import Group  # noqa: PLC0415

    from .latency import latency  # noqa: PLC0415
    from .render import latency_view  # noqa: PLC0415

    check_json(json_path)
    if mlperf:
        mlperf_cli.run_cross_check(
            model,
            requests=requests,
            rate=rate,
            budget=budget,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=open_store(store),
            threads=threads,
            json_path=json_path,
        )
        return
    with progress_bar() as progress:
        found = latency(
            [model],
            requests=requests,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    if requests is None:
        say("note: no requests were given: they were generated from the signature; real traffic will differ", json_path=json_path)
    open_console(json_path).print(Group(*latency_view(found)))
    write_json(found, json_path)


@app.command("calibrate")
@door
def calibrate_command(
    model: ControlArgument,
    requests: RequestsOption = None,
    instance: InstanceOption = "local",
    comparisons: Annotated[int, typer.Option("--comparisons", help="How often the model is compared with itself.")] = 10,
    seconds: Annotated[float, typer.Option("--seconds", help="How long each comparison measures.")] = 10.0,
    launches: LaunchesOption = 8,
    seed: SeedOption = 0,
    threads: ThreadsOption = None,
    store: StoreOption = None,
    json_path: JsonOption = None,
) -> None:
    """Learn what margins this machine can judge: compare a model with itself, many times over."""
    from rich.console import Group  # noqa: PLC0415

    from .calibrate import calibrate  # noqa: PLC0415
    from .render import calibration_view  # noqa: PLC0415

    check_json(json_path)
    with progress_bar() as progress:
        found = calibrate(
            model,
            requests=requests,
            instance=instance,
            comparisons=comparisons,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=open_store(store),
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(Group(*calibration_view(found)))
    say("gates of this store with this control are checked against it from now on", json_path=json_path)
    write_json(found, json_path)


@app.command("instances")
@door
def instances_command(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Everything about this one.", show_default=False)] = None,
    ask_metadata: Annotated[
        bool, typer.Option("--ask-metadata", help="Ask the metadata service which instance this is.", envvar="LIFTGATE_ASK_METADATA")
    ] = False,
    json_path: JsonOption = None,
) -> None:
    """List the instances that models can be measured for, and what this machine can do about each."""
    from .machines.catalogue import instance_view, instances_view, standing, standings  # noqa: PLC0415
    from .machines.instance import find_instance, instances  # noqa: PLC0415
    from .machines.recognise import recognise  # noqa: PLC0415

    check_json(json_path)
    here = recognise(ask=ask_metadata)
    if name is not None:
        one = standing(find_instance(name, where="profile instances"), here)
        open_console(json_path).print(instance_view(one, here))
        write_json(one, json_path)
        return
    rows = standings(instances().values(), here)
    open_console(json_path).print(instances_view(rows, here))
    write_json(rows, json_path)


def _show(result: Comparison, folder: Path, json_path: str | None) -> None:
    from .render import comparison_view  # noqa: PLC0415

    open_console(json_path).print(comparison_view(result))
    say(f"\nresults and raw samples: {folder}\nreport: liftgate report {folder}", json_path=json_path)
    write_json(result, json_path)


def _run_folder(store: Store, control: str, treatment: str) -> Path:
    """`.liftgate/runs/<time>-<control>-vs-<treatment>`."""
    names = (re.sub(r"[^A-Za-z0-9._+-]+", "_", Path(name).name) for name in (control, treatment))
    return store.root / "runs" / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{'-vs-'.join(names)}"


# After the commands above, as --help lists them in this order.
app.command("load")(load.load_command)
app.command("sweep")(load.sweep_command)
app.command("coldstart")(load.coldstart_command)
app.command("trace")(trace.trace_command)
app.command("explain")(trace.explain_command)
app.command("flame")(trace.flame_command)
app.command("trend")(ci.trend_command)
app.command("comment")(ci.comment_command)
app.command("schema")(ci.schema_command)
