"""Load results as text for a terminal: pure functions from results to rich renderables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..arrivals import ArrivalsRef
from ..measure import LAG_LIMIT
from ..render import milliseconds, new_table, place_text, provenance_view
from .result import Answer, Batches, ColdStart, Cost, Load, ModelColdStart, ModelLoad, ModelSweep, Sweep

_INVALID = "bold magenta"
_STYLES: dict[Answer, str] = {"meets": "bold green", "misses": "bold red", "unclear": "bold yellow", "invalid": _INVALID}


def load_view(result: Load) -> RenderableType:
    """One row per model, what was unusual about it, and where the numbers come from."""
    at = result.provenance
    table = new_table(f"{place_text(at)}: {_arrivals(result.arrivals)}; ms from when a request was due [95 %]")
    quantiles = list(result.models[0].latency_ms)
    for heading in ("model", *quantiles, "service p50 / p95", "offered / achieved per s", "busy", "late p99", "requests"):
        table.add_column(escape(heading), justify="left" if heading == "model" else "right")
    for model in result.models:
        table.add_row(*_row(model, quantiles))
    lines: list[RenderableType] = [table]
    for model in result.models:
        lines += _words(model)
    lines += provenance_view(at)
    lines += [Text(f"INVALID: {reason}", style=_INVALID) for reason in result.invalid]
    return Group(*lines)


def sweep_view(result: Sweep) -> RenderableType:
    """One row per model with the interval of its rate, then every trial."""
    at, names = result.provenance, ", ".join(limit.text for limit in result.limits)
    arrivals = "Poisson" if result.arrivals.process == "poisson" else f"{result.arrivals.source}, time scaled"
    table = new_table(f"{place_text(at)}: highest rate that keeps {names}; {arrivals}")
    for heading in ("model", "keeps up to per s", "misses from per s", "busy at most per s", "USD per million", "against the first"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in result.models:
        confirmed = "" if model.confirmed or model.meets_per_s is None else " (not confirmed)"
        rates = (f"{_rate(model.meets_per_s)}{confirmed}", _rate(model.misses_per_s), f"{model.capacity_per_s:.1f}")
        table.add_row(escape(model.model.name), *rates, _cost(model.cost), escape(_against(model, result.models[0])))
    lines: list[RenderableType] = [table, *(Text(f"INVALID: {reason}", style=_INVALID) for reason in result.invalid)]
    lines += [Text(f"{model.model.name}: {model.why}", style="yellow") for model in result.models if model.why]
    costs = [model.cost for model in result.models if model.cost is not None]
    prices = {f"price ({cost.label} rate): {cost.usd_per_hour:g} USD/h, {cost.price}" for cost in costs}
    lines += [Text(words, style="dim") for words in sorted(prices)]
    for model in result.models:
        lines += ["", _trials(model, result)]
    lines += provenance_view(at)
    return Group(*lines)


def coldstart_view(result: ColdStart) -> RenderableType:
    """One row per model, and what was in the page cache."""
    at = result.provenance
    table = new_table(f"{place_text(at)}: fresh processes, median in ms [95 %]")
    headings = ("model", "import", "load", "first request", "requests until steady", "load until steady", "steady", "memory", "swap")
    for heading in (*headings, "launches"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for model in result.models:
        times = [milliseconds(e) for e in (model.import_ms, model.load_ms, model.first_request_ms)]
        steady = [escape(model.requests_until_steady.text(0)), milliseconds(model.until_steady_ms), milliseconds(model.steady_ms)]
        memory = [_mebibytes(model.memory_bytes), _mebibytes(model.swapped_bytes)]
        table.add_row(escape(model.model.name), *times, *steady, *memory, str(len(model.launches)))
    lines: list[RenderableType] = [table]
    lines += [Text(f"page cache, {model.model.name}: {_cached(model)}", style="dim") for model in result.models]
    lines.append(Text("import is the runtime's; its libraries and the interpreter's stay in the page cache either way", style="dim"))
    lines += provenance_view(at)
    lines += [Text(f"INVALID: {reason}", style=_INVALID) for reason in result.invalid]
    return Group(*lines)


def _mebibytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**20:.0f} MiB"


def _cached(model: ModelColdStart) -> str:
    shares = [launch.cached_share for launch in model.launches]
    known = [share for share in shares if share is not None]
    if len(known) < len(shares):
        return "unknown, the kernel does not tell"
    return f"{min(known):.0%} to {max(known):.0%} of the model's files were in it before a start"


def batches_view(result: Batches) -> RenderableType:
    """One row per size."""
    at = result.provenance
    table = new_table(f"{escape(result.model.name)} on {place_text(at)}: requests per call, closed loop [95 %]")
    first = result.sizes[0].requests_per_call
    for heading in ("requests per call", *(f"{name} ms per call" for name in result.sizes[0].call_ms), "requests/s", f"x {first}", "calls"):
        table.add_column(heading, justify="right")
    for size in result.sizes:
        times = [milliseconds(e) for e in size.call_ms.values()]
        gain = "" if size is result.sizes[0] else escape(size.gain.text(2))
        table.add_row(str(size.requests_per_call), *times, escape(size.requests_per_s.text(1)), gain, f"{size.calls:,}")
    lines: list[RenderableType] = [table, *provenance_view(at)]
    lines += [Text(f"INVALID: {reason}", style=_INVALID) for reason in result.invalid]
    return Group(*lines)


def answer_text(answer: Answer, words: str) -> Text:
    """An answer and what it is about, in its colour."""
    return Text.assemble("  ", (f"{answer:<8}", _STYLES[answer]), f" {words}")


def _row(model: ModelLoad, quantiles: Sequence[str]) -> list[str]:
    latency = [milliseconds(model.latency_ms[name]) for name in quantiles]
    service = "\n".join(milliseconds(model.service_ms[name]) for name in ("p50", "p95"))
    rate = f"{model.offered_per_s:.1f}\n{escape(model.achieved_per_s.text(1))}"
    asked = f"{model.requests:,} in {model.launches} launches" + (f"\n{model.unanswered:,} unanswered" if model.unanswered else "")
    busy, late = escape(model.utilisation.text(0, 100)) + " %", f"{model.lag_ms['p99']:.3f} ms"
    return [escape(model.model.name), *latency, service, rate, busy, late, asked]


def _words(model: ModelLoad) -> list[RenderableType]:
    lines: list[RenderableType] = []
    if model.overload is not None:
        lines.append(Text(f"OVERLOADED: {model.model.name}: {model.overload}; latency grows with time", style="bold red"))
    if model.unsettled is not None:
        lines.append(Text(f"too short: {model.model.name}: {model.unsettled}: latency may be higher, raise --seconds", style="yellow"))
    for one in model.limits:
        lines.append(answer_text(one.answer, f"{model.model.name}: {one.limit.text}: found {one.found_ms.text(3)} ms"))
    lines += [Text(f"INVALID: {model.model.name}: {reason}", style=_INVALID) for reason in model.invalid]
    return lines


def _rate(rate_per_s: float | None) -> str:
    return "none seen" if rate_per_s is None else f"{rate_per_s:.1f}" if rate_per_s >= 10 else f"{rate_per_s:.3f}"


def _cost(found: Cost | None) -> str:
    if found is None:
        return "?"
    return f"{found.high:.4f}" if found.low is None else escape(f"[{found.low:.4f}, {found.high:.4f}]")


def _against(model: ModelSweep, base: ModelSweep) -> str:
    """The ratio of two intervals of rates: from the worst to the best that both allow."""
    if model is base or model.meets_per_s is None or base.meets_per_s is None:
        return ""
    low = None if base.misses_per_s is None else model.meets_per_s / base.misses_per_s
    high = None if model.misses_per_s is None else model.misses_per_s / base.meets_per_s
    return "x [" + ", ".join("?" if bound is None else f"{bound:.2f}" for bound in (low, high)) + "] the rate"


def _trials(model: ModelSweep, result: Sweep) -> RenderableType:
    """Every trial by rate, with a bar as long as the first limited quantile: the limit is at the mark."""
    table = new_table(f"trials of {escape(model.model.name)}")
    limit_ms = result.limits[0].limit_ms
    for heading in ("requests/s", "busy", *(f"{limit.quantile} ms" for limit in result.limits), f"| {result.limits[0].text}", "trial"):
        table.add_column(escape(heading), justify="left" if heading in ("trial", f"| {result.limits[0].text}") else "right")
    for point in sorted(model.points, key=lambda one: one.rate_per_s):
        found = [milliseconds(one) for one in point.found_ms]
        late = point.lag_p99_ms > LAG_LIMIT * min(limit.limit_ms for limit in result.limits)
        extra = " overloaded" if point.overload else f" (server late by {point.lag_p99_ms:.2f} ms at p99)" if late else ""
        extra += " (too short for the queue to settle)" if point.unsettled else ""
        words = Text(point.answer, style=_STYLES[point.answer]) + Text(extra, style="dim")
        table.add_row(f"{point.rate_per_s:.1f}", f"{point.utilisation:.0%}", *found, _bar(point.found_ms[0].value or 0.0, limit_ms), words)
    return table


def _bar(ms: float, limit_ms: float, width: int = 24) -> str:
    """`####|   ` on a scale whose mark is the limit; `>` when it does not fit."""
    mark, filled = width // 2, round(ms / limit_ms * width / 2)
    cells = ["#" if i < filled else " " for i in range(width)]
    cells[mark] = "|"
    return "".join(cells) + (">" if filled > width else "")


def _arrivals(ref: ArrivalsRef) -> str:
    if ref.process == "poisson":
        return f"Poisson, {ref.rate_per_s:g} requests/s"
    scaled = "" if ref.rate_per_s == ref.recorded_per_s else f" (recorded at {ref.recorded_per_s:.2f}/s, time scaled)"
    return f"{ref.source}: {ref.rate_per_s:.4g} requests/s{scaled}, gaps vary by {ref.gap_cv:.2f} of their mean"
