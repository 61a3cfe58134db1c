from __future__ import annotations

from pathlib import Path

import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.recipes.recipe import Prune, QuantizeDynamic, read_recipe, shipped_recipes

HEAD = 'name = "x"\nversion = 1\ndescription = "d"\n'


def write(folder: Path, steps: str) -> Path:
    path = folder / "int8.toml"
    path.write_text(HEAD + steps)
    return path


def test_every_shipped_recipe_is_found_under_its_own_name() -> None:
    assert [read_recipe(recipe.name) for recipe in shipped_recipes()] == shipped_recipes()
    assert {"int8-safe", "prune", "prune-int8"} <= {recipe.name for recipe in shipped_recipes()}


def test_steps_are_read_in_order_with_their_kinds() -> None:
    recipe = read_recipe("prune-int8")
    assert recipe.steps == (Prune(keep=0.7), QuantizeDynamic())
    assert recipe.label == "prune-int8@1"


def test_an_unknown_key_names_file_step_and_the_right_key(tmp_path: Path) -> None:
    path = write(tmp_path, '[[steps]]\nkind = "prune"\nkeep = 0.5\n[[steps]]\nkind = "quantize_dynamic"\nreduce_rang = true\n')
    with pytest.raises(UnknownName, match=r"int8.toml: step 2: unknown key 'reduce_rang'; did you mean 'reduce_range'\?"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ('[[steps]]\nkind = "prun"\nkeep = 0.5\n', r"step 1: unknown kind 'prun'; did you mean 'prune'\?"),
        ("[[steps]]\nkeep = 0.5\n", "step 1: expected a kind"),
        ('[[steps]]\nkind = "prune"\nkeep = 1.5\n', "step 1: .*< 1.0"),
        ("steps = []\n", "length >= 1"),
        ("[[steps]\n", "not valid TOML"),
    ],
)
def test_a_broken_recipe_says_where(tmp_path: Path, steps: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, steps))


def test_an_unknown_name_suggests_a_shipped_one() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'int8-safe'\?"):
        read_recipe("int8-saf")


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        read_recipe(tmp_path / "nope.toml")
