"""What docs/load.md shows is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from liftgate.profile.cli import app
from typer.main import get_command

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "load.md").read_text(encoding="utf-8")


def test_every_option_that_is_named_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group
    known = {option for name in ("load", "sweep", "coldstart", "run") for p in commands[name].params for option in p.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE)) - known == set()


def test_commands_of_the_guide_name_options_of_their_own() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]  # a group
    shown = re.findall(r"profile (load|sweep|coldstart|run) ([^`\n]*)", GUIDE)
    assert {name for name, _ in shown} == {"load", "sweep", "coldstart", "run"}
    for name, rest in shown:
        known = {option for p in commands[name].params for option in p.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) - known == set()


def test_the_python_example_names_what_can_be_imported() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    imports = [line for line in example.splitlines() if line.startswith("from ")]
    assert len(imports) == 2
    for line in imports:
        exec(line, {})
