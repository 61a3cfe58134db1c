"""The run as Markdown for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping

from .folder import CANDIDATES
from .judging import Kept
from .result import CaseResult, Outcome, Result, geometric_mean, speedups
from .variants import REFERENCE, VARIANTS

EXACT = "liftgate-exact"


def table(result: Result) -> list[str]:
    """A summary of all cases, where we lose, the rooflines, then a table per case."""
    lines = [*_facts(result), "", *_summary(result), "", *_losses(result), "", *_rooflines(result), "", *_orders(result)]
    for case in result.cases:
        lines += ["", *_case(case)]
    return lines


def _facts(result: Result) -> list[str]:
    peaks, tools = result.peaks, result.tools
    versions = ", ".join(f"{name} {tools[name]}" for name in sorted(tools))
    return [
        f"`{result.command}`: {result.seconds / 60:.0f} min on {result.machine.cpu}, core {result.core}, {versions}.",
        "",
        f"Peaks of that core in the same run: {peaks.float32_gflops:.1f} GFLOP/s in float32, {peaks.int8_gops:.1f} GOP/s in int8 "
        f"(square products in ONNX Runtime), copies {peaks.cache_gb_s:.1f} GB/s in the cache and {peaks.memory_gb_s:.1f} GB/s in memory.",
    ]


def _summary(result: Result) -> list[str]:
    """A row per case and number of candidates, and geometric means."""
    lines = [
        "| case | candidates | our fastest that counts | p50 ms | best peer that counts | its p50 ms | times faster | than ORT fp32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in result.cases:
        for candidates in CANDIDATES:
            mine, peer = case.fastest(candidates, ours=True), case.fastest(candidates, ours=False)
            if peer is None:
                continue
            shown = [case.name, str(candidates)]
            if mine is None:
                lines.append(_row([*shown, "none", "", VARIANTS[peer].label, _median(case, peer, candidates), "", ""]))
                continue
            gains = [case.over(mine, other, candidates).text(2) for other in (peer, REFERENCE)]
            names = [VARIANTS[mine].label, _median(case, mine, candidates), VARIANTS[peer].label, _median(case, peer, candidates)]
            lines.append(_row([*shown, *names, *gains]))
    lines += [
        "",
        "| geometric mean over the cases | candidates | times faster than the best peer | than ONNX Runtime fp32 | cases |",
        "|---|---|---|---|---|",
    ]
    ours: list[tuple[str, str | None]] = [("our fastest that counts", None)]
    ours += [(variant.label, name) for name, variant in VARIANTS.items() if variant.ours]
    for label, name in ours:
        for candidates in CANDIDATES:
            over_peer, over_ort = (speedups(result, candidates, name, other) for other in (None, REFERENCE))
            if over_peer:
                means = [f"{geometric_mean(ratios):.2f}" for ratios in (over_peer, over_ort)]
                lines.append(_row([label, str(candidates), *means, f"{len(over_peer)} of {len(result.cases)}"]))
    return lines


def _losses(result: Result) -> list[str]:
    """Where a peer is as fast, and recipes that do not count."""
    found = []
    for case in result.cases:
        for candidates in CANDIDATES:
            mine, peer = case.fastest(candidates, ours=True), case.fastest(candidates, ours=False)
            if mine is not None and peer is not None:
                gain = case.over(mine, peer, candidates).value
                if gain is not None and gain < 1.2:
                    found.append(f"{case.name} x {candidates}: {gain:.2f} times {VARIANTS[peer].label}")
        for name, outcome in case.outcomes.items():
            if VARIANTS[name].ours and not outcome.counts:
                why = outcome.failure or (_quality(outcome.kept) if outcome.kept else "not judged")
                found.append(f"{VARIANTS[name].label} on {case.name} does not count ({why})")
    return ["Where we lose: " + ("; ".join(found) + "." if found else "in no case less than 1.2 times the best peer.")]


def _rooflines(result: Result) -> list[str]:
    lines = [
        "Distance to the roofline: the median over the least time that the graph's arithmetic (at its peak) or its traffic (node by node,",
        "at the cache's speed) allows. Traffic is counted as if every node read and wrote memory, so that fused nodes can be below 1.",
        "",
        "| case | variant | candidates | MFLOP | MB moved | roofline ms | p50 ms | distance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in result.cases:
        for candidates in CANDIDATES:
            mine = case.fastest(candidates, ours=True)
            if mine is None:
                continue
            need = case.outcomes[mine].needs[candidates]
            least, median = need.least_ms(result.peaks), case.median_ms(mine, candidates)
            numbers = [f"{need.flops / 1e6:.2f}", f"{need.bytes / 1e6:.2f}", f"{least:.4f}", f"{median:.4f}", f"{median / least:.1f}"]
            lines.append(_row([case.name, VARIANTS[mine].label, str(candidates), *numbers]))
    return lines


def _orders(result: Result) -> list[str]:
    """Is `exact` exact."""
    lines = [
        "`exact` beside the original on every final request: orders that differ (stable sort; all candidates, or the first ten), the",
        "largest gap between the original's scores of a swapped pair, and the largest change of a score; both over the standard deviation",
        "of the request's scores, the gap also in scores. Float32 rounding is about 1e-6, or 1e-7 of a probability.",
        "",
        "| case | requests | ordered otherwise | in the first ten | largest gap of a swap | in scores | largest change of a score |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in result.cases:
        outcome = case.outcomes.get(EXACT)
        if outcome is not None and outcome.order is not None:
            order = outcome.order
            counted = [str(count) for count in (order.requests, order.different, order.different_in_ten)]
            sizes = [f"{size:.1e}" for size in (order.largest_gap, order.largest_gap_absolute, order.largest_difference)]
            lines.append(_row([case.name, *counted, *sizes]))
    return lines


def _case(case: CaseResult) -> list[str]:
    sizes = " / ".join(str(count) for count in CANDIDATES)
    columns = [
        "variant",
        *(column for count in CANDIDATES for column in (f"p50 ms x {count}", "p95 ms")),
        f"times faster than ORT fp32 ({sizes})",
        f"than the best peer ({sizes})",
        "NDCG@10 ratio, all",
        "worst segment",
        "requests",
        "counts",
    ]
    lines = [
        f"### {case.name} ({case.package})",
        "",
        f"NDCG@10 {case.ndcg:.3f}, films ranked by popularity {case.popularity_ndcg:.3f} (500 validation requests).",
        "",
        _row(columns),
        "|" + "---|" * len(columns),
    ]
    for name, outcome in case.outcomes.items():
        cells = [VARIANTS[name].label]
        for count in CANDIDATES:
            times = outcome.times.get(count)
            cells += ["", ""] if times is None else [times.quantile_ms(q).text(3) for q in (0.5, 0.95)]
        best = {count: case.fastest(count, ours=False) for count in CANDIDATES}
        lines.append(_row([*cells, _gains(case, name, dict.fromkeys(CANDIDATES, REFERENCE)), _gains(case, name, best), *_judged(outcome)]))
    return lines


def _gains(case: CaseResult, name: str, others: Mapping[int, str | None]) -> str:
    """How many times faster than another variant with each number of candidates."""
    timed = {count: other for count, other in others.items() if other is not None and count in case.outcomes[name].times}
    return " / ".join(f"{case.over(name, other, count).value or 0.0:.2f}" for count, other in timed.items())


def _judged(outcome: Outcome) -> list[str]:
    if outcome.kept is None:
        return ["", "", "", f"no: {outcome.failure}"]
    worst = outcome.kept.worst
    believed = ", believed" if outcome.kept.believed else ""
    verdict = f"yes{believed}" if outcome.counts else f"no{': ' + outcome.failure if outcome.failure else ''}"
    return [outcome.kept.ratios["all"].text(4), f"{worst} {outcome.kept.ratios[worst].text(4)}", str(outcome.kept.requests), verdict]


def _quality(kept: Kept) -> str:
    worst = kept.worst
    return f"NDCG@10 ratio {kept.ratios['all'].text(4)}, {worst} {kept.ratios[worst].text(4)}"


def _median(case: CaseResult, variant: str, candidates: int) -> str:
    return case.outcomes[variant].times[candidates].quantile_ms(0.5).text(3)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
