"""`[session]` in a recipe, and recipes written by a program."""

from __future__ import annotations

from pathlib import Path

import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.session_defaults import SessionDefaults
from liftgate.recipes.recipe import Recipe, read_recipe, recipe_text
from liftgate.recipes.steps import Prune, QuantizeDynamic

HEAD = 'name = "mine"\nversion = 1\ndescription = "d"\n'


def write(folder: Path, body: str) -> Path:
    (folder / "mine.toml").write_text(HEAD + body)
    return folder / "mine.toml"


def test_a_recipe_says_how_its_model_is_run(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, '[session]\nruntime = "openvino"\nthreads = 2\narena = false\n'))
    assert recipe.steps == ()
    assert recipe.session == SessionDefaults(runtime="openvino", threads=2, arena=False)


def test_a_mistyped_setting_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown key 'trheads'; did you mean 'threads'"):
        read_recipe(write(tmp_path, "[session]\ntrheads = 2\n"))
    with pytest.raises(InputError, match="threads"):
        read_recipe(write(tmp_path, "[session]\nthreads = 0\n"))


def test_a_recipe_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a step \(length >= 1\), or a \[session\]"):
        read_recipe(write(tmp_path, ""))


def test_what_a_program_writes_is_read_back_equal(tmp_path: Path) -> None:
    steps = (Prune(keep=0.5, exclude=('a "b"', "c\\d\x7f")), QuantizeDynamic())
    recipe = Recipe(name="best", version=1, description="näher = 1", steps=steps, session=SessionDefaults(runtime="openvino"))
    (tmp_path / "best.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "best.toml") == recipe
