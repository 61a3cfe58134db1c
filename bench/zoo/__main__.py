"""`python -m liftgate.bench.zoo`: which third-party recommenders liftgate exports, and whether the result says the same."""

from __future__ import annotations

import argparse

from .catalogue import select
from .eager import problems


def main() -> None:
    """Parse, call, print."""
    parser = argparse.ArgumentParser(prog="python -m liftgate.bench.zoo", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names, packages or package/name")
    parser.add_argument("--list", action="store_true", help="name the models and stop")
    parser.add_argument("--check", action="store_true", help="run every model in PyTorch at 7, 2 and 1 rows and stop")
    options = parser.parse_args()
    cases = select(options.only)
    if options.list:
        for case in cases:
            print(f"{case.key}  ({case.kind})")
        print(f"{len(cases)} models")
    elif options.check:
        for case in cases:
            found = problems(case)
            print(f"{case.key}: {'; '.join(found) or 'ok'}", flush=True)


main()
