from __future__ import annotations

from pathlib import Path

import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.recipes.recipe import read_recipe, recipe_text, shipped_recipes
from liftgate.recipes.steps import Prune, QuantizeDynamic

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
    path = write(tmp_path, '[[steps]]\nkind = "prune"\nkeep = 0.5\n[[steps]]\nkind = "quantize_dynamic"\nper_chanel = true\n')
    with pytest.raises(UnknownName, match=r"int8.toml: step 2: unknown key 'per_chanel'; did you mean 'per_channel'\?"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ('[[steps]]\nkind = "prun"\nkeep = 0.5\n', r"step 1: unknown kind 'prun'; did you mean 'prune'\?"),
        ("[[steps]]\nkeep = 0.5\n", "step 1: expected a kind"),
        ('[[steps]]\nkind = ["x"]\n', r"step 1: kind: expected one of .*quantize_dynamic, .*prune.*, found \['x'\]"),
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


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".toml"])
def test_a_name_longer_than_any_file_is_one_error(name: str) -> None:
    with pytest.raises(InputError, match=r"x{300}"):
        read_recipe(name)


@pytest.mark.parametrize("keep", [-0.5, 0.0, 1.0, float("nan")])
def test_a_share_to_keep_lies_between_0_and_1_in_python_too(keep: float) -> None:
    with pytest.raises(InputError, match="prune: keep: expected a share between 0 and 1, found "):
        Prune(keep=keep)


@pytest.mark.parametrize("multiple", [0, -8, 257])
def test_a_multiple_lies_between_1_and_256_in_python_too(multiple: int) -> None:
    with pytest.raises(InputError, match="prune: multiple of: expected a number from 1 to 256, found "):
        Prune(keep=0.5, multiple_of=multiple)


def test_what_a_recipe_does_about_refusals_survives_being_written(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(recipe_text(read_recipe("int8-safe")))
    assert read_recipe(tmp_path / "mine.toml") == read_recipe("int8-safe")


def test_a_required_kind_is_one_of_the_steps(tmp_path: Path) -> None:
    text = 'name = "mine"\nversion = 1\ndescription = ""\nrequired = ["fuze"]\n\n[[steps]]\nkind = "fuse"\n'
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UnknownName, match=r"mine.toml: required: unknown kind of its steps 'fuze'; did you mean 'fuse'"):
        read_recipe(tmp_path / "mine.toml")
