"""The peers in an environment of their own, made on first use; LIFTGATE_PEERS_PYTHON names an interpreter to use instead."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDER = CHECKOUT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path:
    """The interpreter that has Olive, NNCF and OpenVINO; makes its environment where there is none or its requirements changed."""
    given = os.environ.get("LIFTGATE_PEERS_PYTHON")
    return Path(given) if given else make(FOLDER)


def make(folder: Path) -> Path:
    """Install torch, the peers and liftgate without its other dependencies into `folder`; returns its interpreter."""
    constraints = (CHECKOUT / "constraints.txt").read_text()
    torch = next(line for line in constraints.splitlines() if line.startswith("torch=="))
    wanted = hashlib.sha256(torch.encode() + REQUIREMENTS.read_bytes()).hexdigest()
    interpreter, ready = folder / "bin" / "python", folder / ".ready"
    if ready.is_file() and ready.read_text() == wanted:
        return interpreter
    print(f"Setting up {folder} (once, a few minutes)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Pinned exactly: a looser pin resolves to the build for GPUs, gigabytes of it.
    subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, "--no-deps", "--requirement", str(REQUIREMENTS)], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(CHECKOUT)], check=True)
    ready.write_text(wanted)
    return interpreter
