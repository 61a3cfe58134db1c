"""`python -m liftgate.bench.zoo`: which third-party recommenders liftgate exports, and whether the result says the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from ...core.errors import LiftgateError
from ...core.machine import this_machine, tool_versions
from .catalogue import PACKAGES, select
from .eager import problems
from .outcome import Outcome
from .run import run
from .table import render

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"


def main() -> None:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(prog="python -m liftgate.bench.zoo", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names, packages or package/name; then no page is written")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every outcome in full")
    parser.add_argument("--list", action="store_true", help="name the models and stop")
    parser.add_argument("--check", action="store_true", help="run every model in PyTorch at 7, 2 and 1 rows and stop")
    options = parser.parse_args()
    try:
        cases = select(options.only)
    except LiftgateError as error:
        sys.exit(str(error))
    if options.list:
        for case in cases:
            print(f"{case.key}  ({case.kind})")
        print(f"{len(cases)} models")
    elif options.check:
        for case in cases:
            print(f"{case.key}: {'; '.join(problems(case)) or 'ok'}", flush=True)
    else:
        _report(run(cases, _tell), page=not options.only, json=options.json)


def _tell(outcome: Outcome) -> None:
    print(f"{outcome.key}: {outcome.verdict} ({outcome.export_seconds:.1f} s) {' '.join(outcome.reason.split())[:160]}", flush=True)


def _report(outcomes: Sequence[Outcome], *, page: bool, json: Path | None) -> None:
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode({"versions": _versions(), "outcomes": outcomes})))
    if page:
        PAGE.write_text(render(outcomes, _versions(), "python -m liftgate.bench.zoo.environment"), encoding="utf-8")
    equal = sum(outcome.verdict == "equal" for outcome in outcomes)
    print(f"{equal} of {len(outcomes)} equal")


def _versions() -> list[str]:
    tools = [f"{name} {version}" for name, version in tool_versions().items()]
    return [*(f"{package} {metadata.version(package)}" for package in PACKAGES), *tools, this_machine().cpu]


main()
