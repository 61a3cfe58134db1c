"""How often a gate on p50 is right: the same model twice, and against a model that really does more work."""

from __future__ import annotations

from collections import Counter

from ..core.store import Store
from ..profile.budget import parse_budget
from ..profile.compare import compare
from .ranker import make_model, make_requests

BUDGET = parse_budget('version = 1\n[[gate]]\nmetric = "latency_p50"\nmax_regress = "5%"\n', source="bench")


def run(store: Store, *, repeats: int, seconds: float) -> list[str]:
    """Lines of a Markdown table: outcomes of `repeats` comparisons per case."""
    make_model("bench-a", 256, store)
    make_model("bench-slower", 4096, store)
    requests = make_requests(64)
    lines = [
        f"p50 gate, max_regress 5 %, {seconds:g} s per comparison, {repeats} comparisons per case",
        "",
        "| case | true ratio (median of runs) | PASS | FAIL | UNDECIDED | INVALID |",
        "|---|---|---|---|---|---|",
    ]
    for case, treatment in (("same model twice", "bench-a"), ("16 x wider top", "bench-slower")):
        outcomes: Counter[str] = Counter()
        ratios = []
        for seed in range(repeats):
            found = compare("bench-a", treatment, requests=requests, budget=BUDGET, seconds=seconds, seed=seed, store=store, threads=1)
            verdict = found.candidates[0].verdict
            outcomes[verdict.outcome if verdict else "none"] += 1
            change = next(c for changes in found.instances[0].changes.values() for c in changes if c.quantile == "p50")
            ratios.append(change.ratio.value or 0.0)
        counts = " | ".join(str(outcomes[o]) for o in ("PASS", "FAIL", "UNDECIDED", "INVALID"))
        lines.append(f"| {case} | {sorted(ratios)[len(ratios) // 2]:.3f} | {counts} |")
    return lines
