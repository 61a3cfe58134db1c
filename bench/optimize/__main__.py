"""The benchmark as a command; `--help` lists its options."""

from __future__ import annotations

import sys

from .run import run

print("\n".join(run(sys.argv[1:])))
