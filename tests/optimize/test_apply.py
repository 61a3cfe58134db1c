from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError, RefusedStep, UnknownName
from liftgate.core.requests import Requests
from liftgate.core.store import Store
from liftgate.optimize.agreement import spearman
from liftgate.optimize.apply import apply
from liftgate.optimize.export import export
from liftgate.recipes.recipe import Recipe
from liftgate.recipes.steps import CompressTables, HoistRequest, Prune, QuantizeDynamic, Step

from .conftest import make_requests

pytestmark = pytest.mark.usefixtures("small_models_may_get_slower")


def test_steps_and_parents_are_kept_in_the_lineage(exported: ModelArtifact, store: Store) -> None:
    result = apply("prune-int8", "v1.1", store=store, requests=make_requests(40))
    manifest = result.manifest
    assert manifest.name == "v1.1-prune-int8"
    assert manifest.parent == exported.manifest.digest
    assert manifest.recipe == "prune-int8@1"
    assert [step.kind for step in manifest.steps] == ["export", "prune", "quantize_dynamic"]
    assert [one.name for one in store.lineage(result)] == ["v1.1-prune-int8", "v1.1"]


def test_a_step_records_how_scores_and_size_moved(exported: ModelArtifact, store: Store, requests: Requests) -> None:
    recipe = Recipe(name="int8", version=1, description="", steps=(QuantizeDynamic(),))
    numbers = apply(recipe, exported, store=store, requests=requests).manifest.steps[-1].numbers
    assert numbers["nodes_quantized"] == 4.0
    assert 0 < numbers["max_abs_difference"] < 0.05
    assert numbers["spearman"] > 0.98
    assert numbers["size_bytes_after"] < numbers["size_bytes_before"]


def test_pruning_makes_the_file_and_the_matrices_smaller(exported: ModelArtifact, store: Store) -> None:
    recipe = Recipe(name="half", version=1, description="", steps=(Prune(keep=0.5),))
    result = apply(recipe, exported, store=store, requests=make_requests(40))
    # mlp.0: 32 -> 16 units of 24 inputs and a bias, mlp.2: 16 -> 8 units; 16 * 25 + (32 * 16 - 16 * 8) + 8 + 8.
    assert exported.manifest.parameters - result.manifest.parameters == 16 * 25 + 32 * 16 - 16 * 8 + 8 + 8
    assert re.match(r"mlp\.0 32 -> 16 \(error [\d.e-]+\), mlp\.2 16 -> 8 \(error [\d.e-]+\) units", result.manifest.steps[-1].summary)


def test_a_bare_archive_is_exported_under_its_own_name_first(archive: Path, tmp_path: Path) -> None:
    result = apply("int8-safe", archive, store=tmp_path)
    assert Store(tmp_path).names() == ["v1.1", "v1.1-int8-safe"]
    assert result.manifest.parent == Store(tmp_path).resolve("v1.1").manifest.digest


def test_a_refused_step_writes_nothing(exported: ModelArtifact, store: Store, requests: Requests) -> None:
    before = store.names()
    recipe = Recipe(name="void", version=1, description="", steps=(QuantizeDynamic(), Prune(keep=0.99)))
    with pytest.raises(RefusedStep, match=r"v1\.1: void: step 2"):
        apply(recipe, exported, store=store, requests=requests)
    assert store.names() == before
    assert [path.name for path in (store.root / "objects").iterdir() if path.name.startswith(".")] == []


def test_a_refused_recipe_does_not_leave_the_export_of_its_file_behind(archive: Path, tmp_path: Path) -> None:
    recipe = Recipe(name="void", version=1, description="", steps=(Prune(keep=0.99),))
    with pytest.raises(RefusedStep):
        apply(recipe, archive, store=tmp_path)
    assert Store(tmp_path).names() == []
    assert list((tmp_path / "objects").iterdir()) == []


def test_a_file_does_not_replace_a_model_of_its_name_that_knows_its_roles(archive: Path, requests: Requests, tmp_path: Path) -> None:
    kept = export(archive, name="v1.1", store=tmp_path, requests=requests)
    with pytest.raises(InputError, match=r"would replace 'v1\.1' in the store, .*roles; give the name v1\.1 instead of the file"):
        apply("int8-safe", archive, store=tmp_path)
    assert Store(tmp_path).names() == ["v1.1"]
    assert Store(tmp_path).resolve("v1.1").manifest.digest == kept.manifest.digest
    # With the requests that the roles came from, the file is that very model.
    assert apply("int8-safe", archive, store=tmp_path, requests=requests).manifest.parent == kept.manifest.digest


def test_a_wrong_column_is_named(exported: ModelArtifact, store: Store, requests: Requests) -> None:
    wrong = Requests(requests.table.append_column("price", [[1.0] * len(requests)]), source="wrong.parquet")
    with pytest.raises(UnknownName, match="unknown column 'price'"):
        apply("int8-safe", exported, store=store, requests=wrong)


def test_unknown_names_suggest_known_ones(exported: ModelArtifact, store: Store) -> None:
    with pytest.raises(UnknownName, match=r"unknown model 'v1.2'; did you mean 'v1.1'\?"):
        apply("int8-safe", "v1.2", store=store)
    with pytest.raises(InputError, match="found nothing"):
        apply("int8-safe", "missing.pt", store=store)


def test_static_int8_of_an_artifact_holds_int8_weights_and_close_scores(exported: ModelArtifact, store: Store) -> None:
    result = apply("int8-static", exported, store=store, requests=make_requests(64))
    step = result.manifest.steps[-1]
    assert step.numbers["nodes_quantized"] >= 1.0
    assert step.numbers["spearman"] > 0.97
    assert step.numbers["size_bytes_after"] < step.numbers["size_bytes_before"]


def test_static_int8_needs_requests(exported: ModelArtifact, store: Store) -> None:
    with pytest.raises(RefusedStep, match="needs real requests"):
        apply("int8-static", exported, store=store)


def test_spearman_by_hand() -> None:
    # Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 * 2 / (4 * 15).
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 30, 20, 40])) == pytest.approx(0.8)
    assert spearman(np.ones(3), np.arange(3.0)) is None


def test_a_recipe_may_leave_out_a_step_that_refuses_but_not_one_it_requires(
    tmp_path: Path, exported: ModelArtifact, requests: Requests
) -> None:
    def recipe(*steps: Step, required: tuple[str, ...] = ()) -> Recipe:
        return Recipe(name="mine", version=1, description="by hand", steps=steps, on_refusal="skip", required=required)

    small, moved = CompressTables(min_rows=1000), HoistRequest()
    made = apply(recipe(small, moved), exported, name="mine", requests=requests, store=Store(tmp_path))
    assert [step.kind for step in made.manifest.steps if step.kind != "export"] == ["hoist_request"]
    assert any(warning.startswith("left out: compress tables of v1.1: mine: step 1") for warning in made.manifest.warnings)
    for refused in (recipe(small, moved, required=("compress_tables",)), recipe(small)):
        with pytest.raises(RefusedStep, match="compress tables"):
            apply(refused, exported, name="other", requests=requests, store=Store(tmp_path))
    assert Store(tmp_path).names() == ["mine"]
