"""A cross-check as text for a terminal: pure functions from results to rich renderables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from ..render import milliseconds, new_table, place_text, provenance_view
from .result import Answer, CrossCheck, LoadgenVerdict, ScenarioCheck

_STYLES: dict[Answer, str] = {"agree": "bold green", "differ": "bold red", "unclear": "bold yellow"}
_VERDICTS = {"VALID": "bold green", "INVALID": "bold magenta"}


def cross_check_view(result: CrossCheck) -> RenderableType:
    """A table per scenario with LoadGen's own verdict below it, then how agreement was decided and where numbers come from."""
    at = result.provenance
    tools = f"MLPerf LoadGen {result.loadgen_version} and liftgate in turns"
    lines: list[RenderableType] = [Text(f"{result.model.name} on {place_text(at)}: {tools}")]
    for scenario in result.scenarios:
        lines += ["", *_scenario_view(scenario)]
    lines += ["", Text(result.rule, style="dim"), *provenance_view(at)]
    lines += [Text(f"unsteady: {reason} (both tools alike; ratios still count)", style="yellow") for reason in result.unsteady]
    lines += [Text(f"INVALID: {reason}", style="bold magenta") for reason in result.invalid]
    return Group(*lines)


def _scenario_view(scenario: ScenarioCheck) -> list[RenderableType]:
    rate = "" if scenario.rate_per_s is None else f" ({scenario.rate_per_s:.1f} requests/s)"
    table = new_table(f"{scenario.scenario}{rate} and our {scenario.ours}, ms [95 %]")
    for heading in ("", "LoadGen", "ours", "LoadGen / ours", "p", "answer"):
        table.add_column(heading, justify="left" if heading in ("", "answer") else "right")
    for one in scenario.percentiles:
        ratio = escape(one.ratio.text(3))
        answer = Text(one.answer, style=_STYLES[one.answer])
        table.add_row(one.percentile, milliseconds(one.loadgen_ms), milliseconds(one.ours_ms), ratio, f"{one.p_value:.3f}", answer)
    counts = f"{scenario.requests:,} requests by each, in {scenario.rounds} rounds of {scenario.launches} launches"
    callback = f"LoadGen counts its callback, {scenario.callback_ms * 1e3:.1f} µs per request; the ratio is without it"
    lines: list[RenderableType] = [table, Text(f"{counts}; {callback}", style="dim")]
    if scenario.late_ms is not None:
        told = (f"{tool if tool == 'ours' else 'LoadGen'} {late['p50']:.3f} / {late['p99']:.3f}" for tool, late in scenario.late_ms.items())
        lines.append(Text(f"begun late, though free, by ms at p50 / p99 (counted in both tools' latency): {', '.join(told)}", style="dim"))
    lines.append(_verdict_line(scenario.verdict, aimed=scenario.rate_per_s is not None))
    lines.append(Text(f"  {scenario.verdict.early_stopping}", style="dim"))
    return lines


def _verdict_line(verdict: LoadgenVerdict, *, aimed: bool) -> Text:
    """LoadGen's words; only Server is `aimed` at a target."""
    why = f": {', '.join(verdict.reasons)}" if verdict.reasons else ""
    target = f" with target {verdict.target} {verdict.target_ms:g} ms" if aimed else ""
    early = ""
    if verdict.early_stopping_ms is not None:
        early = f"; LoadGen is 99 % sure that {verdict.target} is at most {verdict.early_stopping_ms:.3f} ms"
    words = f"  LoadGen's verdict on {verdict.queries:,} more requests{target}{why}{early}"
    return Text.assemble((verdict.result, _VERDICTS[verdict.result]), words)
