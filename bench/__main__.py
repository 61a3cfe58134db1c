"""`make bench`: run the benchmarks (all, or those named) and print Markdown for docs/benchmarks.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ..core.machine import this_machine, tool_versions
from ..core.store import Store
from . import fuzz, recipes, router
from .measure import run as measure
from .optimize import run as optimize
from .zoo import environment as zoo

PARTS = ("recipes", "router", "measure", "fuzz", "zoo", "optimize")


def main(wanted: list[str]) -> None:
    """Run the parts in `wanted`."""
    machine = this_machine()
    print(f"{machine.cpu}, {machine.cores} cores, {', '.join(machine.features)}; {machine.system}")
    print(", ".join(f"{name} {version}" for name, version in tool_versions().items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store(folder / "store")
        for part in wanted:
            print(f"\n## {part}\n", flush=True)
            if part == "recipes":
                print("\n".join(recipes.run(store, folder, seconds=30)))
            elif part == "router":
                print("\n".join(router.run(store, folder, requests=2000)))
            elif part == "measure":
                print("\n".join(measure.run(store)))
            elif part == "fuzz":
                print("\n".join(fuzz.run(10_000)))
            elif part == "optimize":
                print("\n".join(optimize.run()))
            elif part == "zoo":
                if zoo.run():
                    raise SystemExit("a model of the zoo was exported wrongly, or crashed the export")
            else:
                raise SystemExit(f"unknown part '{part}'; known: {', '.join(PARTS)}")


main(sys.argv[1:] or list(PARTS))
