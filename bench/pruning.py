"""What pruning and factorising cost in quality and give in time: a small trained ranker on MovieLens, every variant against the original.

LIFTGATE_DATA=data python -m liftgate.bench.pruning [prune] [low_rank]
"""

from __future__ import annotations

import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from ..core.artifact import ModelArtifact
from ..core.errors import RefusedStep
from ..core.estimate import Estimate
from ..core.requests import Requests
from ..core.store import Store
from ..demo.case import Case, prepare
from ..demo.movielens import read_movielens
from ..demo.ranker import Ranker
from ..demo.scale import FULL, TrainingSettings
from ..demo.training import examples_of, save, train
from ..optimize.apply import apply
from ..optimize.export import export
from ..optimize.timing import Contender, race
from ..quality.evaluate import evaluate_users, pair
from ..recipes.recipe import Recipe
from ..recipes.steps import LowRank, Prune, Step
from ..runtime.session import SessionSettings, open_session

CANDIDATES = 256
SEED = 0
KEEPS = (0.75, 0.5, 0.35, 0.25)
ERRORS = (0.005, 0.01, 0.02, 0.05)
_SETTINGS = TrainingSettings(epochs=2, learning_rate=2e-3)


class Deep(Ranker):
    """Embeddings of 32 and an MLP 512-256-128 on user, item, mean history and their product."""

    def __init__(self, *, users: int, items: int) -> None:
        super().__init__(users=users, items=items, dim=32, hidden=(512, 256))
        widths = (128, 512, 256, 128)
        layers = [part for a, b in pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.top = nn.Sequential(*layers, nn.Linear(128, 1))


def steps(kind: str) -> list[tuple[str, Step]]:
    """The variants of a part, each with what it is called."""
    keeps: list[tuple[str, Step]] = []
    for keep in KEEPS:
        keeps += [(f"keep {keep}, as they were", Prune(keep=keep, refit=False)), (f"keep {keep}", Prune(keep=keep))]
    within: list[tuple[str, Step]] = [(f"max error {error}", Prune(max_error=error)) for error in ERRORS]
    low: list[tuple[str, Step]] = [(f"max error {error}", LowRank(max_error=error)) for error in ERRORS]
    return {"prune": [*keeps, *within], "low_rank": low}[kind]


def run(store: Store, folder: Path, parts: list[str], *, seconds: float) -> list[str]:
    """Lines of a Markdown table per part."""
    case = prepare(read_movielens(Path(os.environ["LIFTGATE_DATA"])), FULL, seed=SEED)
    base = _trained(case, store, folder)
    lines = [f"{case.summary}", ""]
    for part in parts:
        lines += [f"{part}:", "", "| step | NDCG@10 ratio | time ratio | what happened |", "|---|---|---|---|"]
        for name, step in steps(part):
            lines.append(_line(name, step, base, case, store=store, seconds=seconds))
            print(lines[-1], file=sys.stderr, flush=True)
        lines.append("")
    return lines


def _line(name: str, step: Step, base: ModelArtifact, case: Case, *, store: Store, seconds: float) -> str:
    recipe = Recipe(name="trial", version=1, description="bench", steps=(step,))
    try:
        found = apply(recipe, base, store=store, requests=case.calibration)
    except RefusedStep as refusal:
        return f"| {name} | refused | | {refusal.problem} |"
    quality, time = _quality(base, found, case.holdout), _time(base, found, case, store, seconds)
    return f"| {name} | {quality.text(4)} | {time.text(2)} | {found.manifest.steps[-1].summary} |"


def _quality(base: ModelArtifact, found: ModelArtifact, requests: Requests) -> Estimate:
    """Ratio of NDCG@10, with its paired 95 % interval over users."""
    control, treatment = (evaluate_users(model, requests, metrics=("ndcg@10",), seed=SEED) for model in (base, found))
    return next(part for part in pair(control, treatment) if part.segment == "all").change().ratio


def _time(base: ModelArtifact, found: ModelArtifact, case: Case, store: Store, seconds: float) -> Estimate:
    """How long a request of CANDIDATES takes relative to the original, one thread, in turns."""
    contenders = []
    random = np.random.default_rng(SEED)
    signature = msgspec.structs.replace(base.manifest.signature, layout="rows")
    feeds = [
        {name: random.permutation(np.resize(array, (CANDIDATES, *array.shape[1:]))) for name, array in feed.items()}
        for feed in case.holdout.take(range(16)).feeds(signature)
    ]
    for model in (base, found):
        session = open_session(model, SessionSettings(threads=1), store=store)
        contenders.append(Contender(name=model.manifest.name, run=session.run, feeds=feeds))
    return race(contenders, seconds=seconds, seed=SEED).ratio()


def _trained(case: Case, store: Store, folder: Path) -> ModelArtifact:
    if "deep" in store.names():
        return store.resolve("deep")
    torch.manual_seed(SEED)
    model = Deep(users=case.data.users, items=case.data.items)
    train(model, examples_of(case.split.train), case.popularity, _SETTINGS, seed=SEED)
    save(model, folder / "deep.pt")
    return export(folder / "deep.pt", name="deep", store=store, requests=case.calibration)


def main(parts: list[str]) -> None:
    """Run the parts named, both without names."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(os.environ.get("LIFTGATE_BENCH", name))
        print("\n".join(run(Store(folder / "store"), folder, parts or ["prune", "low_rank"], seconds=2.0)))


if __name__ == "__main__":
    main(sys.argv[1:])
