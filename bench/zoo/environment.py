"""`python -m liftgate.bench.zoo.environment`: the zoo in an environment of its own, made on first use; other arguments go to the zoo.

The packages in requirements.txt are nothing that liftgate or its tests need. LIFTGATE_ZOO_PYTHON names an interpreter to use instead.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import environment

CHECKOUT = environment.CHECKOUT
FOLDER = CHECKOUT / ".venv-zoo"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path:
    """The interpreter that has torch, liftgate with its known-good versions, and the zoo's packages."""
    liftgate = ["--constraint", str(environment.CONSTRAINTS), "--editable", f"{CHECKOUT}[hf]"]
    made_of = environment.CONSTRAINTS.read_bytes() + REQUIREMENTS.read_bytes()
    return environment.python("LIFTGATE_ZOO_PYTHON", FOLDER, made_of, [liftgate, ["--no-deps", "--requirement", str(REQUIREMENTS)]])


def run(arguments: Sequence[str] = ()) -> int:
    """Run the zoo with `arguments` in its environment; the exit code."""
    return subprocess.run([str(python()), "-m", "liftgate.bench.zoo", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
