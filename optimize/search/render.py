"""A search as text for the terminal."""

from __future__ import annotations

from ...core.estimate import Estimate
from ..drawing import table_text, wrapped
from .result import Search, Trial, latency_of
from .space import label

_SHOWN = 25


def search_text(found: Search, width: int = 160) -> str:
    """The trials, fastest first, those of the front marked; then the gate and the model it recommends, or why there is none."""
    lines = [f"note: {note}" for note in found.notes]
    ordered = sorted(found.trials, key=lambda t: (not t.holds, latency_of(t), t.number))
    rows = [_row(trial, found) for trial in ordered[:_SHOWN]]
    header = ("", "trial", "steps", "runtime", "x time [95 %]", "ms", f"x {found.metric}", "worst floor", "size", "")
    title = f"{len(found.trials)} trials of {found.combinations} combinations, {found.threads} thread(s); time over {found.parent.name}, "
    title += f"{found.metric} over {found.base.name} on {found.requests.requests} requests"
    lines.append(table_text(header, rows, width, title=title, right=("trial", "ms", "worst floor", "size"), flexible=("steps", "")))
    if len(ordered) > _SHOWN:
        lines.append(f"and {len(ordered) - _SHOWN} more trials (--json has all)")
    lines.append("*: on the front, no other trial that holds every floor is both faster and better")
    lines += ["", *_gate_lines(found, width)]
    return "\n".join(lines)


def _row(trial: Trial, found: Search) -> tuple[str, ...]:
    return (
        "*" if trial.number in found.front else "",
        str(trial.number),
        label(trial.steps),
        trial.runtime,
        _estimate(trial.latency, 3),
        "?" if trial.us is None else f"{trial.us / 1e3:.3f}",
        _estimate(trial.overall, 4) + (" (some users)" if trial.screened else ""),
        "?" if trial.margin is None else f"{trial.margin:+.4f}",
        f"{trial.size_bytes / 2**20:.2f} MiB",
        "" if trial.holds else f"{trial.state}: {trial.reason}" if trial.state == "failed" else trial.state,
    )


def _estimate(estimate: Estimate | None, digits: int) -> str:
    return "?" if estimate is None else estimate.text(digits)


def _gate_lines(found: Search, width: int) -> list[str]:
    lines = list[str]()
    by_number = {trial.number: trial for trial in found.trials}
    for one in found.finalists:
        steps = label(by_number[one.trial].steps)
        lines.append(f"gate on {found.gate_requests.requests} other requests: {one.verdict.outcome} for trial {one.trial} ({steps})")
        lines += [wrapped(f"{f.outcome} {f.reason}", width, indent="  ") for f in one.verdict.findings]
    if found.winner is not None and found.recipe is not None:
        best = next(one for one in reversed(found.finalists) if one.verdict == found.verdict)
        what = f"{best.latency.text(3)} of the time of {found.parent.name}, {best.us / 1e3:.3f} ms per request in this process"
        lines.append(f"{found.outcome}  {found.winner.name}  {found.winner.digest[:12]}  {what}")
        lines.append(
            f"next: profile compare {found.base.name} {found.winner.name}   or   liftgate serve {found.base.name} {found.winner.name}"
        )
        return lines
    if not found.finalists and any(trial.holds and not trial.steps for trial in found.trials):
        lines.append(f"FAIL  nothing to recommend: {found.parent.name} as it is holds the floors, and nothing else that was tried does")
        return lines
    lines.append("FAIL  nothing to recommend: no trial holds the budget")
    if found.closest is not None:
        near = by_number[found.closest]
        lines.append(
            f"closest: trial {near.number}, {label(near.steps)} on {near.runtime}; worst floor {near.worst} {near.margin or 0.0:+.4f}"
        )
    return lines
