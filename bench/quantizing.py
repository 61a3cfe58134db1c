"""What quantization gives in time and file size and costs in ranking: a small trained ranker on MovieLens, variants in turns with fp32.

LIFTGATE_DATA=data/ml-latest-small python -m liftgate.bench.quantizing
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ..core.artifact import ModelArtifact
from ..core.errors import RefusedStep
from ..core.requests import Requests
from ..core.store import Store
from ..demo.case import Case, prepare
from ..demo.movielens import read_movielens
from ..demo.scale import FULL, TrainingSettings
from ..demo.training import examples_of, save, train
from ..optimize.apply import apply
from ..optimize.export import export
from ..optimize.timing import Contender, Race, race
from ..quality.evaluate import evaluate_users, pair
from ..recipes.recipe import Recipe
from ..recipes.steps import QuantizeDynamic, QuantizeStatic, QuantizeWeights, SmoothActivations, Step, TuneStatic
from ..runtime.session import SessionSettings, open_session
from .pruning import CANDIDATES, SEED, Deep

_SETTINGS = TrainingSettings(epochs=2, learning_rate=2e-3)
VARIANTS: dict[str, tuple[Step, ...]] = {
    "dynamic": (QuantizeDynamic(),),
    "dynamic, u8": (QuantizeDynamic(format="u8"),),
    "static, minmax": (QuantizeStatic(),),
    "static, percentile": (QuantizeStatic(calibration="percentile"),),
    "static, entropy": (QuantizeStatic(calibration="entropy"),),
    "static, u8": (QuantizeStatic(format="u8"),),
    "static, s8": (QuantizeStatic(format="s8"),),
    "smoothed, static": (SmoothActivations(), QuantizeStatic()),
    "tuned": (TuneStatic(),),
    "weights, 8 bits": (QuantizeWeights(),),
    "weights, 4 bits": (QuantizeWeights(bits=4),),
}


def run(store: Store, folder: Path, *, seconds: float) -> list[str]:
    """Lines of a Markdown table."""
    case = prepare(read_movielens(Path(os.environ["LIFTGATE_DATA"])), FULL, seed=SEED)
    archive = _trained(case, folder)
    base = export(archive, name="deep", store=store, requests=case.calibration)
    made: dict[str, ModelArtifact] = {"fp32": base}
    lines = ["| variant | time relative to fp32 | NDCG@10 relative to fp32 | rank correlation | size MiB |", "|---|---|---|---|---|"]
    notes = []
    for name, steps in VARIANTS.items():
        slug = name.replace(", ", "-").replace(" ", "-")
        recipe = Recipe(name=slug, version=1, description="bench", steps=steps)
        try:
            # Tuning needs PyTorch's model.
            made[name] = apply(recipe, archive if name == "tuned" else base, name=slug, store=store, requests=case.calibration)
        except RefusedStep as refusal:
            notes.append(f"refused: {name}: {refusal.problem}")
    times = _times(list(made.values()), case.holdout, store, seconds=seconds)
    control = evaluate_users(base, case.holdout, metrics=("ndcg@10",), seed=SEED)
    for number, (name, model) in enumerate(made.items()):
        change = pair(control, evaluate_users(model, case.holdout, metrics=("ndcg@10",), seed=SEED))[0].change().ratio
        kept = model.manifest.steps[-1].numbers.get("spearman")
        correlation = "" if kept is None else f"{kept:.4f}"
        lines.append(f"| {name} | {times.ratio(number).text(2)} | {change.text(4)} | {correlation} | {model.size_bytes / 2**20:.2f} |")
    return [case.summary, "", *lines, "", f"fp32: {times.median_us(0) / 1e3:.2f} ms per request, {len(times.block_ns)} blocks", *notes]


def _times(models: list[ModelArtifact], requests: Requests, store: Store, *, seconds: float) -> Race:
    """All models in turns on the same requests, one thread."""
    contenders = []
    for model in models:
        session = open_session(model, SessionSettings(threads=1), store=store)
        feeds = list(_wide(requests).feeds(model.manifest.signature))
        contenders.append(Contender(name=model.manifest.name, run=session.run, feeds=feeds))
    return race(contenders, seconds=seconds, seed=SEED)


def _wide(requests: Requests) -> Requests:
    """Some of the requests with CANDIDATES candidates each, their own repeated."""
    taken = requests.take(range(64)).table
    for name in ("item", "label"):
        values = [np.resize(np.asarray(value), CANDIDATES).tolist() for value in taken[name].to_pylist()]
        taken = taken.set_column(taken.column_names.index(name), name, pa.array(values))
    return Requests(taken, source=requests.source)


def _trained(case: Case, folder: Path) -> Path:
    if (folder / "deep.pt").is_file():
        return folder / "deep.pt"
    torch.manual_seed(SEED)
    model = Deep(users=case.data.users, items=case.data.items)
    train(model, examples_of(case.split.train), case.popularity, _SETTINGS, seed=SEED)
    save(model, folder / "deep.pt")
    return folder / "deep.pt"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        # A folder that stays keeps the trained model for the next time.
        print("\n".join(run(Store(Path(name) / "store"), Path(os.environ.get("LIFTGATE_BENCH", name)), seconds=20)))
