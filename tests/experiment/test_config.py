from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.experiment.config import experiment_from_split, parse_experiment, read_experiment, to_toml

GOOD = """
version = 1
name = "ctr"
control = "old"
minimum_effect = "5%"
arms = [{ name = "old", model = "v1.0", weight = 90 }, { name = "new", model = "v1.1-int8", weight = 10 }]
"""


def test_weights_become_shares_and_the_salt_defaults_to_the_name() -> None:
    experiment = parse_experiment(GOOD, where="e.toml")
    assert experiment.shares == {"old": 0.9, "new": 0.1}
    assert experiment.effective_salt == "ctr"
    assert experiment.minimum_relative_effect == 0.05
    assert [arm.name for arm in experiment.treatments] == ["new"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("weight = 10", "wieght = 10"), "unknown key 'wieght'; did you mean 'weight'?"),
        (('control = "old"', 'control = "odl"'), "unknown arm 'odl'; did you mean 'old'?"),
        (("weight = 10", "weight = 0"), "weight must be above 0"),
        (("weight = 10", "weight = inf"), "weight must be above 0"),
        (('name = "new"', 'name = "old"'), "arm names must differ"),
        (("v1.1-int8", "v1.0"), "arm models must differ"),
        (("version = 1", "version = 2"), "version"),
        (("version = 1", "version = 1\ncoverage = 1.5"), "coverage"),
        (('"5%"', '"5 ms"'), "minimum_effect"),
        (('"5%"', '"0%"'), "minimum_effect must be above 0"),
        (('"5%"', '"1e999%"'), "minimum_effect must be above 0"),
        (('"5%"', '"1e-200"'), "minimum_effect must be above 0"),
        (("version = 1", "alpha = 1e-200"), "alpha"),
        (("version = 1", "coverage = nan"), "coverage"),
        (("version = 1", "coverage = 0.00001"), "coverage 1e-05 enrols none of 10,000 buckets"),
        (("weight = 10", "weight = 0.001"), "arm 'new': its weight gives it none of 10,000 buckets"),
        (("version = 1", 'segments = ["all"]'), "a segment may not be called 'all'"),
        (('model = "v1.1-int8", weight = 10 }]', 'model = "v1.1-int8", weight = 10 }]\nserving.max_body = "1e999 B"'), "max_body"),
        ((', { name = "new", model = "v1.1-int8", weight = 10 }', ""), "at least two arms"),
    ],
)
def test_a_bad_experiment_is_refused_with_the_reason(change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=r"e\.toml|minimum_effect") as caught:
        parse_experiment(GOOD.replace(*change), where="e.toml")
    assert message in str(caught.value)


def test_a_split_names_the_arms_after_their_models_and_survives_being_written(tmp_path: Path) -> None:
    experiment = experiment_from_split(("v1.0", "v1.1-int8"), "90:10")
    assert experiment.control == "v1.0"
    assert experiment.shares == {"v1.0": 0.9, "v1.1-int8": 0.1}
    (tmp_path / "experiment.toml").write_text(to_toml(experiment))
    assert read_experiment(tmp_path / "experiment.toml") == experiment


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (("./v1.0", "./v1.1"), ["v1.0", "v1.1"]),
        (("/m/a.pt2", "/m/b.pt"), ["a", "b"]),
        (("./v1.0.onnx", "v1.1.pt2"), ["v1.0", "v1.1.pt2"]),
    ],
)
def test_an_arm_is_named_after_its_folder_or_file(models: tuple[str, str], names: list[str]) -> None:
    assert [arm.name for arm in experiment_from_split(models, "90:10").arms] == names


def test_models_whose_names_cannot_name_an_arm_are_refused() -> None:
    with pytest.raises(InputError, match=r"serve: arm name '\.\.'"):
        experiment_from_split(("../..", "v1.0"), "1:1")


@pytest.mark.parametrize("text", ["\U0001f600", "\x7f", '\\ " \n \t \b \x1f', "\u2028 \x85 é", "it's"])
def test_odd_strings_survive_being_written(tmp_path: Path, text: str) -> None:
    experiment = msgspec.structs.replace(experiment_from_split(("v1.0", "v1.1"), "1:2"), salt=text, segments=(text, "b"))
    (tmp_path / "experiment.toml").write_text(to_toml(experiment), encoding="utf-8")
    assert read_experiment(tmp_path / "experiment.toml") == experiment


def test_shares_are_those_of_the_buckets() -> None:
    experiment = experiment_from_split(("a", "b", "c"), "1:1:1")
    assert experiment.buckets == {"a": 3333, "b": 3334, "c": 3333}
    assert experiment.shares == {"a": 0.3333, "b": 0.3334, "c": 0.3333}


@pytest.mark.parametrize("split", ["90", "90:0", "90:10:5", "a:b", "90:-10", "nan:1"])
def test_a_split_must_give_every_model_a_positive_weight(split: str) -> None:
    with pytest.raises(InputError, match="--split"):
        experiment_from_split(("v1.0", "v1.1"), split)


def test_an_unknown_arm_is_named() -> None:
    with pytest.raises(UnknownName, match="'nwe'"):
        parse_experiment(GOOD, where="e.toml").arm("nwe")
