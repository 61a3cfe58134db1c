"""What each recipe gives on this machine: PyTorch, the plain export and every variant interleaved in one run."""

from __future__ import annotations

from pathlib import Path

import torch

from ..core.errors import RefusedStep
from ..core.store import Store
from ..optimize.apply import apply
from ..profile.latency import latency
from .ranker import CANDIDATES, HISTORY, Ranker, make_model, make_requests

RECIPES = ("exact", "int8-safe", "fastest", "prune", "prune-int8")


def run(store: Store, folder: Path, *, seconds: float) -> list[str]:
    """Lines of a Markdown table: time per request relative to ONNX Runtime fp32, paired by round."""
    requests = make_requests(64)
    base = make_model("bench-fp32", 1024, store)
    variants, notes = [], []
    for recipe in RECIPES:
        try:
            variants.append(apply(recipe, base, store=store, requests=requests))
        except RefusedStep as error:
            notes.append(f"refused: {error}")
    found = latency([base, *variants, _archive(folder)], requests=requests, seconds=seconds, threads=1, store=store)
    lines = [
        f"1 user x {CANDIDATES} candidates, history {HISTORY}, top 1024, 1 thread, random weights (speed only, quality not judged)",
        "",
        "| model | p50 ms | p95 ms | p50 relative to fp32 | size MiB |",
        "|---|---|---|---|---|",
    ]
    for model in found.models:
        ratio = next((c.ratio.text(3) for c in found.changes.get(model.model.name, ()) if c.quantile == "p50"), "1 (base)")
        p50, p95 = (model.quantiles_ms[q].text(3) for q in ("p50", "p95"))
        lines.append(f"| {model.model.name} ({model.model.runtime}) | {p50} | {p95} | {ratio} | {model.model.size_bytes / 2**20:.2f} |")
    invalid = [f"INVALID: {reason}" for reason in found.invalid]
    return [*lines, *(["", *notes, *invalid] if notes or invalid else [])]


def _archive(folder: Path) -> Path:
    torch.manual_seed(0)
    rows = torch.export.Dim("rows", min=1, max=1 << 20)
    example = (torch.ones(3, dtype=torch.int64), torch.ones(3, HISTORY, dtype=torch.int64), torch.ones(3, dtype=torch.int64))
    program = torch.export.export(Ranker(1024).eval(), example, dynamic_shapes=({0: rows}, {0: rows}, {0: rows}))
    path = folder / "eager.pt"
    with path.open("wb") as file:
        torch.export.save(program, file)
    return path
