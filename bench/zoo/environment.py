"""`python -m liftgate.bench.zoo.environment`: the zoo in an environment of its own, made on first use; other arguments go to the zoo.

The packages in requirements.txt are nothing that liftgate or its tests need. LIFTGATE_ZOO_PYTHON names an interpreter to use instead.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".venv-zoo"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path:
    """The interpreter that has the zoo's packages; makes its environment where there is none or its requirements changed."""
    given = os.environ.get("LIFTGATE_ZOO_PYTHON")
    return Path(given) if given else make(FOLDER)


def make(folder: Path) -> Path:
    """Install torch, liftgate with its known-good versions and then the zoo's packages into `folder`; returns its interpreter."""
    constraints = CHECKOUT / "constraints.txt"
    wanted = hashlib.sha256(constraints.read_bytes() + REQUIREMENTS.read_bytes()).hexdigest()
    interpreter, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == wanted:
        return interpreter
    print(f"Setting up {folder} (once, a few minutes)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    # torch first, so that whatever build the user's index offers is not replaced by another one's dependencies.
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--constraint", str(constraints), "--editable", f"{CHECKOUT}[hf]"], check=True)
    subprocess.run([*pip, "--no-deps", "--requirement", str(REQUIREMENTS)], check=True)
    ready.write_text(wanted)
    return interpreter


def run(arguments: Sequence[str] = ()) -> int:
    """Run the zoo with `arguments` in its environment; the exit code."""
    return subprocess.run([str(python()), "-m", "liftgate.bench.zoo", *arguments], check=False).returncode


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
