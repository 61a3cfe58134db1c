"""A search on a small ranker: what it finds, what it refuses, and that it goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from liftgate.cli import app
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.estimate import Estimate
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from liftgate.core.verdict import Outcome
from liftgate.optimize.apply import apply
from liftgate.optimize.search.render import search_text
from liftgate.optimize.search.result import Search, Trial, front
from liftgate.optimize.search.search import search
from liftgate.optimize.search.space import SPACE, Slot, label, sequence, slot
from liftgate.optimize.search.study import Study
from liftgate.profile.budget import parse_budget
from liftgate.recipes.recipe import read_recipe, recipe_text
from liftgate.recipes.steps import Fuse, Prune, QuantizeDynamic, Step
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

WIDTH, HIDDEN, CANDIDATES = 16, 320, 24
SIGNATURE = Signature(
    inputs=(InputSpec(name="x", dtype="float32", shape=("rows", WIDTH), role="candidate"),),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
)
SMALL: tuple[Slot, ...] = (slot("prune", Prune(keep=0.5, refit=False), Prune(keep=0.02, refit=False)),)
TWO: tuple[Slot, ...] = (slot("prune", Prune(keep=0.5), Prune(keep=0.1)), slot("quantize", QuantizeDynamic()))
BUDGET = parse_budget('[[gate]]\nmetric = "ndcg@10"\nmax_drop = "10%"\n')


def weights() -> list[np.ndarray]:
    """Two hidden layers of which most units hardly matter, so that half of them can go."""
    rng = np.random.default_rng(0)
    first, second, last = (rng.normal(0, (1 / a) ** 0.5, (a, b)) for a, b in ((WIDTH, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)))
    fade = np.where(np.arange(HIDDEN) < HIDDEN // 8, 1.0, 0.001)
    return [array.astype(np.float32) for array in (first * fade, second * fade, last)]


def write_model(store: Store, name: str, noise: float) -> None:
    rng = np.random.default_rng(1)
    arrays = [array + rng.normal(0, noise, array.shape).astype(np.float32) * np.abs(array) for array in weights()]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu0"),
        helper.make_node("MatMul", ["b", "w1"], ["c"], name="second"),
        helper.make_node("Relu", ["c"], ["d"], name="relu1"),
        helper.make_node("MatMul", ["d", "w2"], ["score"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(arrays)],
    )
    with store.draft(name) as draft:
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), draft.model_path)
        draft.signature, draft.opset = SIGNATURE, 20
        store.commit(draft)


def requests(first: int, count: int = 40) -> Requests:
    """Labels follow what the model with the weights above prefers, so its own NDCG is 1."""
    rng = np.random.default_rng(first)
    x = rng.normal(0, 1, (count, CANDIDATES, WIDTH)).astype(np.float32)
    a, b, c = weights()
    scores = (np.maximum(np.maximum(x @ a, 0) @ b, 0) @ c)[..., 0]
    data: dict[str, Sequence[object]] = {
        "request_id": [f"r{first + i}" for i in range(count)],
        "user_id": [f"u{first + i}" for i in range(count)],
        "x": x.tolist(),
        "label": (scores >= np.sort(scores, axis=1)[:, -3:-2]).astype(float).tolist(),
    }
    return Requests.of(data, source=f"from{first}.parquet")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    write_model(store, "v1.0", 0.0)
    write_model(store, "v1.1", 0.01)
    return store


def run(store: Store, **changes: object) -> Search:
    settings: dict[str, object] = {
        "base": "v1.0",
        "requests": requests(0),
        "gate_requests": requests(1000),
        "budget": BUDGET,
        "seconds": 60.0,
        "space": SMALL,
        "store": store,
    }
    return search("v1.1", **{**settings, **changes})  # type: ignore[arg-type]  # one call, many variations


@pytest.fixture(scope="module")
def found(shelf: Store) -> Search:
    return run(shelf)


def test_the_winner_passes_the_gate_and_is_faster(found: Search, shelf: Store) -> None:
    assert found.outcome is Outcome.PASS
    assert found.winner is not None
    assert found.winner.name == "v1.1-best"
    assert shelf.resolve("v1.1-best").manifest.digest == found.winner.digest
    best = found.finalists[-1]
    assert best.latency.value is not None
    assert best.latency.value < 0.8


def test_every_combination_is_tried_once_and_the_ruined_model_breaks_the_floor(found: Search) -> None:
    assert found.combinations == 3
    assert len(found.trials) == 3
    ruined = [t for t in found.trials if Prune(keep=0.02, refit=False) in t.steps]
    assert {t.state for t in ruined} == {"breaks a floor"}
    assert all("ndcg@10 max_drop 10%" in t.reason for t in ruined)


def test_the_winning_recipe_makes_the_same_model_again(found: Search, shelf: Store, tmp_path: Path) -> None:
    assert found.recipe is not None
    (tmp_path / "best.toml").write_text(recipe_text(found.recipe))
    again = apply(read_recipe(tmp_path / "best.toml"), "v1.1", name="again", requests=requests(0), base="v1.0", store=shelf)
    assert again.manifest.files == shelf.resolve("v1.1-best").manifest.files


def test_a_search_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_model(store, "v1.0", 0.0)
    write_model(store, "v1.1", 0.01)
    with pytest.raises(KeyboardInterrupt):
        run(store, tell=Killer(2))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "search" / "trials").iterdir()}
    assert len(kept) >= 1
    assert store.names() == ["v1.0", "v1.1"]
    again = run(store)
    assert len(again.trials) == 3
    assert {name: (tmp_path / "search" / "trials" / name).read_bytes() for name in kept} == kept


class Killer:
    """Ends the search at its n-th word."""

    def __init__(self, words: int) -> None:
        self.left = words

    def __call__(self, line: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_model_that_nothing_beats_is_no_find(shelf: Store) -> None:
    alone = run(shelf, trials=1, name="alone")
    assert [(trial.steps, trial.holds) for trial in alone.trials] == [((), True)]
    assert (alone.winner, alone.recipe, alone.outcome) == (None, None, Outcome.FAIL)
    assert "alone" not in shelf.names()
    assert "v1.1 as it is holds the floors, and nothing else that was tried does" in search_text(alone)


def test_nothing_is_recommended_when_no_trial_holds(shelf: Store) -> None:
    strict = parse_budget('[[gate]]\nmetric = "auc"\nmin = "100%"\n')
    result = run(shelf, budget=strict, name="never", trials=3)
    assert (result.outcome, result.winner, result.recipe) == (Outcome.FAIL, None, None)
    assert result.closest is not None
    assert "never" not in shelf.names()


def test_requests_that_chose_a_model_cannot_judge_it(shelf: Store) -> None:
    with pytest.raises(InputError, match=r"from30\.parquet: expected none of the requests of from0\.parquet, found 10 of them \(r30"):
        run(shelf, gate_requests=requests(30))


def test_a_budget_without_a_floor_is_refused(shelf: Store) -> None:
    with pytest.raises(InputError, match="expected a floor of ranking quality"):
        run(shelf, budget=parse_budget('[[gate]]\nmetric = "size"\nmax = "1 MiB"\n'))


def test_unlabelled_requests_and_unknown_runtimes_are_refused(shelf: Store) -> None:
    bare = Requests(requests(0).table.drop_columns(["label"]), source="bare.parquet")
    with pytest.raises(InputError, match=r"bare\.parquet: expected a column 'label'"):
        run(shelf, requests=bare)
    with pytest.raises(UnknownName, match="unknown runtime 'onnx'"):
        run(shelf, runtimes=["onnx"])


def trial(number: int, latency: float, overall: float, **changes: object) -> Trial:
    sure = {"latency": latency, "overall": overall}
    values = {name: Estimate(value=value, low=value, high=value, n=9) for name, value in sure.items()}
    settings = {"number": number, "steps": (), "runtime": "onnxruntime", "state": "holds", "margin": 0.01, **values, **changes}
    return Trial(**settings)  # type: ignore[arg-type]  # one call, many variations


def test_the_front_is_what_nothing_beats() -> None:
    trials = (trial(0, 1.0, 1.0), trial(1, 0.5, 0.99), trial(2, 0.6, 0.98), trial(3, 0.4, 0.9, state="breaks a floor"), trial(4, 0.5, 0.99))
    assert front(trials) == (1, 0)


def walk(study: Study, steps: int) -> list[dict[str, str]]:
    """Proposals when pruning halves the time and int8 breaks the floor."""
    path = []
    for number in range(steps):
        proposed = study.propose()
        if proposed is None:
            break
        path.append(proposed)
        fast, broken = proposed["prune"] != "-", proposed["quantize"] != "-"
        state = "breaks a floor" if broken else "holds"
        study.learn(trial(number, 0.5 if fast else 1.0, 0.9 if broken else 1.0, state=state, margin=-0.1 if broken else 0.0))
    return path


def test_the_same_seed_and_results_walk_the_same_path() -> None:
    space = (slot("prune", *(Prune(keep=k / 10) for k in range(1, 10))), slot("quantize", QuantizeDynamic(), QuantizeDynamic(format="u8")))
    first, second, other = (walk(Study(space, ["onnxruntime"], seed=seed), 20) for seed in (3, 3, 4))
    assert first == second
    assert first != other
    assert len({tuple(p.values()) for p in first}) == 20  # nothing is tried twice


def test_a_small_space_is_tried_to_the_end() -> None:
    study = Study(TWO, ["onnxruntime"], seed=0)
    assert len(walk(study, 100)) == study.combinations == 6


def test_steps_are_called_by_their_kinds_and_unusual_settings() -> None:
    steps: tuple[Step, ...] = (Prune(keep=0.5), QuantizeDynamic(exclude=("a", "b")))
    assert label(steps) == "prune keep=0.5; quantize_dynamic exclude=a,b"
    assert label(()) == "-"


def test_exact_steps_are_in_every_sequence_and_in_their_place() -> None:
    space = (slot("fuse", Fuse(), exact=True), *TWO)
    chosen = {"prune": "-", "quantize": "quantize_dynamic"}
    assert sequence(space, chosen, {"fuse": (Fuse(),)}) == (Fuse(), QuantizeDynamic())
    assert sequence(space, chosen, {}) == (QuantizeDynamic(),)


def test_the_shipped_space_has_no_label_twice() -> None:
    assert all(len(one.labels) == len(one.choices) + 1 for one in SPACE)
    assert len({one.name for one in SPACE}) == len(SPACE)


def test_the_command_writes_the_recipe_and_ends_as_gates_do(shelf: Store, tmp_path: Path) -> None:
    requests(0).write(tmp_path / "valid.parquet")
    requests(1000).write(tmp_path / "other.parquet")
    (tmp_path / "budget.toml").write_text('[[gate]]\nmetric = "ndcg@10"\nmax_drop = "20%"\n')
    paths = {"--requests": "valid.parquet", "--gate-requests": "other.parquet", "--budget": "budget.toml"}
    words = ["optimize", "search", "v1.1", "--base", "v1.0", "--store", str(shelf.root), "--trials", "2", "--time", "20s"]
    words += [word for option, name in paths.items() for word in (option, str(tmp_path / name))]
    words += ["--name", "by-command", "--recipe-out", str(tmp_path / "best.toml"), "--json", str(tmp_path / "out.json")]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 0, outcome.output
    assert "PASS  by-command" in outcome.output
    told = msgspec.json.decode((tmp_path / "out.json").read_bytes(), type=Search)
    assert told.recipe == read_recipe(tmp_path / "best.toml")
