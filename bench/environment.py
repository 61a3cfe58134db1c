"""Environments for what conflicts with liftgate's own packages, each made on first use."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CONSTRAINTS = CHECKOUT / "constraints.txt"


def torch_pin() -> str:
    """The exact version of torch: a looser pin resolves to the build for GPUs, gigabytes of it."""
    return next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))


def python(variable: str, folder: Path, made_of: bytes, installs: Sequence[Sequence[str]]) -> Path:
    """The interpreter that the environment variable names; else that of `folder`, made anew where `made_of` changed.

    torch comes first, so that whatever build the user's index offers is not replaced by another one's dependencies; then each of
    `installs`, arguments of pip.
    """
    given = os.environ.get(variable)
    if given:
        return Path(given)
    wanted = hashlib.sha256(made_of).hexdigest()
    interpreter, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == wanted:
        return interpreter
    print(f"Setting up {folder} (once, a few minutes)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for arguments in ([torch_pin()], *installs):
        subprocess.run([*pip, *arguments], check=True)
    ready.write_text(wanted)
    return interpreter
