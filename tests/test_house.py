"""The house itself: rooms, imports, packaging and the traps of its layout."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# DESIGN: who may import whom. cli.py files are doors and may import everything.
ALLOWED = {
    "core": set[str](),
    "runtime": {"core"},
    "recipes": {"core"},
    "quality": {"core", "runtime"},
    "profile": {"core", "runtime", "quality"},
    "optimize": {"core", "runtime", "recipes", "quality", "profile"},
    "experiment": {"core"},
    "serve": {"core", "runtime", "experiment"},
    "reports": {"core", "runtime", "recipes", "quality", "profile", "optimize", "experiment", "serve"},
}
ROOMS = [*ALLOWED, "demo"]


def rooms_imported_by(file: Path) -> set[str]:
    parts = file.relative_to(ROOT).parts
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = list(parts[: len(parts) - node.level])
            target = base + (node.module.split(".") if node.module else [])
            found.update([target[0]] if target else [alias.name for alias in node.names])
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("liftgate."):
            found.add(node.module.split(".")[1])
    return found & set(ROOMS)


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    allowed = ALLOWED[room] | {room}
    wrong = {
        f"{file.relative_to(ROOT)} -> {other}"
        for file in (ROOT / room).rglob("*.py")
        if file.name != "cli.py"
        for other in rooms_imported_by(file) - allowed
    }
    assert wrong == set()


def test_the_demo_uses_the_public_api_and_the_nouns_only() -> None:
    public = {"core", "demo"}
    wrong = {
        f"{file.name} -> {other}"
        for file in (ROOT / "demo").glob("*.py")
        if file.name != "cli.py"
        for other in rooms_imported_by(file) - public
    }
    assert wrong == {"story.py -> serve"}  # the router as a child process has no place in the public API


def test_nothing_shadows_the_standard_library_profile_module() -> None:
    assert not (ROOT / "profile" / "__init__.py").exists()
    command = [sys.executable, "-c", "import cProfile, torch._dynamo; print(cProfile.__file__)"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ROOT not in Path(out.stdout.strip()).parents


def test_import_and_help_load_neither_torch_nor_onnxruntime() -> None:
    code = (
        "import sys, liftgate, liftgate.cli\n"
        "from typer.testing import CliRunner\n"
        "assert CliRunner().invoke(liftgate.cli.app, ['--help']).exit_code == 0\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'pandas', 'scipy', 'duckdb', 'optimum', 'pyarrow'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_public_api_is_callable_after_its_rooms_were_imported() -> None:
    code = (
        "import liftgate, liftgate.serve, liftgate.experiment.config\n"
        "from liftgate.serve.run import run\n"
        "print([name for name in liftgate.__all__ if not callable(getattr(liftgate, name))])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_wheel_installed_elsewhere_has_every_package_and_data_file(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy: building leaves build/ behind, and a stale one would hide a forgotten file
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__"))
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, cwd=tmp_path)
    wheel = next(tmp_path.glob("liftgate-*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"liftgate/{file.relative_to(ROOT)}"
        for room in ROOMS
        for file in (ROOT / room).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert wanted - names == set()
    assert not [n for n in names if n.startswith(("liftgate/tests", "liftgate/bench", "tests/", "liftgate/.venv"))]
    target = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(target)
    run = [
        sys.executable,
        "-c",
        "import liftgate, sys; print(liftgate.__file__); from liftgate.cli import app; app(['profile', 'instances'])",
    ]
    env = {**os.environ, "PYTHONPATH": str(target)}
    out = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=env, check=True)
    assert str(target) in out.stdout
    assert "m5.large" in out.stdout
