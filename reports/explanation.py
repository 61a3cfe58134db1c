"""The section of a report that says which operators make a treatment slower, drawn from `explanation.json`."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..core.estimate import Estimate
from ..core.plural import plural
from ..profile.trace.explanation import Change, Explanation, Step
from .block import Block, Figure, Fold, Heading, Section, Text
from .charts import WIDTH
from .numbers import fixed, known, signed
from .scale import spanning
from .svg import Frame, hue, line, node, picture, shorten, text, x_axis
from .table import Cell, Table, columns, estimate_cell, plain

_ROW, _LEFT, _RIGHT = 24.0, 230.0, 84.0
_ROWS = 12
_US, _DIFFERENCE, _SHARE = fixed(1), signed(1), fixed(0, 100, " %")


def explanation_section(explanations: Sequence[Explanation]) -> Section:
    """One part per treatment; empty without explanations."""
    blocks = [block for found in explanations for block in _blocks(found)]
    return Section(name="explanation", title="Where the time goes", blocks=tuple(blocks))


def _blocks(found: Explanation) -> list[Block]:
    against = f"{found.treatment.name} against {found.control.name}"
    blocks: list[Block] = [Heading(text=against, label="profiled"), Text(text=f"{found.conclusion}.")]
    chart = waterfall_chart(found.control.name, found.treatment.name, found.control_us, found.waterfall)
    caption = (
        "Time per request under the profiler, from one model to the other: right is slower. Models are slower there than in the tables "
    )
    blocks.append(Figure(svg=chart, caption=caption + "above, and no gate reads these numbers."))
    blocks.append(_table("Operators", (*found.operators, found.outside), found))
    blocks.append(Fold(title="Every node", blocks=(_table("Nodes", found.nodes, found, operator=True),)))
    tail = found.tail
    slow = waterfall_chart(found.control.name, found.treatment.name, tail.control_us, tail.waterfall)
    sentence = (
        f"The slowest 1 % of each model ({plural(tail.requests, 'request')}): difference {tail.difference_us.text(1)} µs per request."
    )
    blocks.append(Fold(title="The slowest requests", blocks=(Text(text=sentence), Figure(svg=slow, caption="By operator."))))
    counted = f"{plural(found.pairs, 'pair')} of requests in {plural(found.rounds, 'round')}, fresh processes: {found.launches} per model"
    doubts = (*(f"INVALID: {reason}" for reason in found.invalid), *(f"unsteady: {reason}" for reason in found.unsteady))
    notes = (*doubts, *found.notes, f"{counted} on {found.instance} ({found.label}), seed {found.seed}, {found.machine.cpu}")
    blocks += [Text(text=f"{note[:1].upper()}{note[1:]}.", tone="note") for note in notes]
    return blocks


def _table(title: str, changes: Sequence[Change], found: Explanation, *, operator: bool = False) -> Table:
    """µs per request; what surely makes the treatment slower is marked."""
    names = [title[:-1], *(["operator"] if operator else [])]
    heads = columns(*names, f"{found.control.name}, µs", f"{found.treatment.name}, µs", "difference, µs", "share", text=len(names))
    shown = changes if operator else (*changes[:-1][:_ROWS], changes[-1])
    return Table(caption=f"{title}, own time per request", columns=heads, rows=tuple(_row(c, operator=operator) for c in shown))


def _row(change: Change, *, operator: bool) -> tuple[Cell, ...]:
    detail = {"new": "new", "removed": "removed", "both": ""}[change.status]
    if not operator and change.nodes[0] != change.nodes[1]:
        detail = f"{change.nodes[0]} → {change.nodes[1]} nodes"
    words = [plain(change.name, detail), *([plain(change.op)] if operator else [])]
    worse = (change.difference_us.value or 0.0) > 0
    difference = estimate_cell(change.difference_us, _DIFFERENCE, ("bad" if worse else "good") if change.stands_out else "")
    share = Cell(text="", tone="muted") if change.share is None else estimate_cell(change.share, _SHARE)
    return (*words, _us(change.control_us), _us(change.treatment_us), difference, share)


def _us(value: float | None) -> Cell:
    return Cell(text="none", tone="muted") if value is None else plain(known(value, _US))


def waterfall_chart(control: str, treatment: str, start: Estimate, steps: Sequence[Step]) -> Markup:
    """Bars from the control's time to the treatment's, one per part; empty when the start is unknown."""
    if start.value is None:
        return Markup("")
    end = steps[-1].end_us if steps else start.value
    edges = [start.value, end, *(step.end_us for step in steps)]
    height = _ROW * (len(steps) + 2) + 60
    x = spanning([0.0, *edges], _LEFT, WIDTH - _RIGHT, margin=0.02)
    frame = Frame(x=x, y=spanning([0.0, 1.0], height - 48, 8))
    parts = [x_axis(frame, "µs per request")]
    bars = [(control, 0.0, start.value, 0, f"{start.value:,.1f}")]
    bars += [(s.name, s.start_us, s.end_us, 2 if s.end_us > s.start_us else 3, _DIFFERENCE(s.end_us - s.start_us)) for s in steps]
    bars.append((treatment, 0.0, end, 0, f"{end:,.1f}"))
    for number, (name, begin, finish, series, words) in enumerate(bars):
        y = 10 + number * _ROW
        low, high = frame.x(min(begin, finish)), frame.x(max(begin, finish))
        shape: dict[str, str | float] = {
            "x": low,
            "y": y,
            "width": max(high - low, 1.0),
            "height": _ROW - 7,
            "class": f"mark {hue(series)}",
        }
        parts += [
            text(_LEFT - 10, y + 13, shorten(name, 32), "label", "end"),
            node("rect", shape, node("title", {}, f"{name}: {words} µs")),
            text(high + 6, y + 13, words, "value"),
        ]
        if number + 1 < len(bars):
            parts.append(line(frame.x(finish), y + _ROW - 7, frame.x(finish), y + _ROW, "leader"))
    return picture(WIDTH, height, f"{treatment} against {control}: where the time goes", *parts)
