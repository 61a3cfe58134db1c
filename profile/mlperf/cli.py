"""What `profile run --mlperf` does, and its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...console import open_console, progress_bar, write_json

if TYPE_CHECKING:
    from ...core.store import Store

MlperfOption = Annotated[
    bool, typer.Option("--mlperf", help="Cross-check with MLPerf LoadGen (extra `mlperf`): SingleStream and Server, in turns with ours.")
]
RateOption = Annotated[
    float | None, typer.Option("--rate", help="With --mlperf: requests per second in Server. Default: busy half of the time.")
]
LimitOption = Annotated[
    str | None, typer.Option("--budget", metavar="TEXT|FILE", help='With --mlperf: what LoadGen judges by, such as "p99 20 ms".')
]


def check_options(mlperf: bool, rate: float | None, budget: str | None, batch: str | None) -> None:
    """Raise InputError for an option that only a cross-check has, and for a cross-check without LoadGen."""
    from ...core.errors import InputError  # noqa: PLC0415 - not needed for --help
    from .loadgen import require_loadgen  # noqa: PLC0415

    if mlperf:
        if batch is not None:
            fix = "measure batches without --mlperf"
            raise InputError.mismatch("--batch", expected="single requests, as in LoadGen's SingleStream and Server", found=batch, fix=fix)
        require_loadgen()
        return
    for option, value in (("--rate", rate), ("--budget", budget)):
        if value is not None:
            fix = "add --mlperf, or use `profile load` and `profile gate`"
            raise InputError(option, "`profile run` needs it only to cross-check with MLPerf LoadGen", fix=fix)


def run_cross_check(
    model: str,
    *,
    requests: Path | None,
    rate: float | None,
    budget: str | None,
    instance: str,
    seconds: float,
    launches: int,
    seed: int,
    store: Store,
    threads: int | None,
    json_path: str | None,
) -> None:
    """Measure with both tools and show what came out."""
    from .cross_check import cross_check  # noqa: PLC0415 - --help must not wait for scipy
    from .view import cross_check_view  # noqa: PLC0415

    with progress_bar() as progress:
        found = cross_check(
            model,
            requests=requests,
            rate_per_s=rate,
            budget=budget,
            instance=instance,
            seconds=seconds,
            launches=launches,
            seed=seed,
            store=store,
            threads=threads,
            progress=progress,
        )
    open_console(json_path).print(cross_check_view(found))
    write_json(found, json_path)
