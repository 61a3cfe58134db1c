"""The peers in an environment of their own; LIFTGATE_PEERS_PYTHON names an interpreter to use instead."""

from __future__ import annotations

from pathlib import Path

from .. import environment

CHECKOUT = environment.CHECKOUT
FOLDER = CHECKOUT / ".venv-peers"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def python() -> Path:
    """The interpreter that has torch, Olive, NNCF and OpenVINO, and liftgate without its other dependencies."""
    installs = [["--no-deps", "--requirement", str(REQUIREMENTS)], ["--no-deps", "--editable", str(CHECKOUT)]]
    made_of = environment.torch_pin().encode() + REQUIREMENTS.read_bytes()
    return environment.python("LIFTGATE_PEERS_PYTHON", FOLDER, made_of, installs)
