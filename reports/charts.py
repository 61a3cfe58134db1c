"""Four charts as pure functions from values to SVG text."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from ..core.estimate import Estimate
from .labels import Box, place
from .limits import LimitLine
from .scale import Scale, spanning, spanning_ratios
from .svg import CHAR, Frame, hue, legend, line, marker, node, picture, shorten, text, whisker, x_axis, y_axis

WIDTH = 760.0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a plane; both coordinates have values."""

    name: str
    series: int
    x: Estimate
    y: Estimate


class ForestRow(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled interval with its numbers in words."""

    label: str
    series: int
    estimate: Estimate
    words: str


class RoundSeries(msgspec.Struct, frozen=True, kw_only=True):
    """Paired ratios of one treatment in time order, and what they amount to."""

    name: str
    series: int
    ratios: tuple[float, ...]
    estimate: Estimate


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """A cumulative distribution: `share[i]` of the requests took at most `ms[i]`."""

    name: str
    series: int
    ms: tuple[float, ...]
    share: tuple[float, ...]


def numbers_in(estimates: Sequence[Estimate]) -> list[float]:
    """Every value and bound that is known."""
    return [n for e in estimates for n in (e.value, e.low, e.high) if n is not None]


def scatter(points: Sequence[Point], *, title: str, x_title: str, y_title: str, limits: Sequence[LimitLine] = ()) -> Markup:
    """Points with error bars both ways and shaded zones beyond `limits`; names are moved apart where points lie close."""
    known = [p for p in points if p.x.value is not None and p.y.value is not None]
    if not known:
        return Markup("")
    height = 400.0
    edges = {axis: [line.value for line in limits if line.axis == axis] for axis in ("x", "y")}
    x = spanning(numbers_in([p.x for p in known]) + edges["x"], 58, WIDTH - 16, margin=0.12)
    if x.low < 0:  # time starts at zero
        x = Scale(low=0.0, high=x.high, start=x.start, end=x.end)
    frame = Frame(x=x, y=spanning(numbers_in([p.y for p in known]) + edges["y"], height - 48, 34, margin=0.12))
    bars, marks = [], []
    obstacles = [Box(frame.left, frame.y(v) - 2, frame.right, frame.y(v) + 2) for v in edges["y"]]
    for p in known:
        cx, cy = frame.x(p.x.value or 0.0), frame.y(p.y.value or 0.0)
        for bound, edge in ((p.x.low, frame.left), (p.x.high, frame.right)):
            end = edge if bound is None else frame.x(bound)
            bars.append(whisker(cx, cy, end, cy, p.series, known=bound is not None))
            obstacles.append(Box(min(cx, end), cy - 2, max(cx, end), cy + 2))
        for bound, edge in ((p.y.low, frame.bottom), (p.y.high, frame.top)):
            end = edge if bound is None else frame.y(bound)
            bars.append(whisker(cx, cy, cx, end, p.series, known=bound is not None))
            obstacles.append(Box(cx - 2, min(cy, end), cx + 2, max(cy, end)))
        marks.append(marker(cx, cy, p.series, f"{p.name}: {p.x.text(3)} against {p.y.text(4)}", 6))
    centres = [(frame.x(p.x.value or 0.0), frame.y(p.y.value or 0.0)) for p in known]
    area = Box(frame.left + 2, frame.top + 2, frame.right - 2, frame.bottom - 2)
    boxes = place(centres, [len(shorten(p.name)) * CHAR for p in known], obstacles, area)
    names = [_name(p, centre, box) for p, centre, box in zip(known, centres, boxes, strict=True)]
    axes = x_axis(frame, x_title) + y_axis(frame, y_title)
    return picture(WIDTH, height, title, axes, *(_zone(frame, limit) for limit in limits), *bars, *marks, *names)


def _zone(frame: Frame, limit: LimitLine) -> Markup:
    """The side of a limit where its gate is broken."""
    hint = node("title", {}, limit.name)
    if limit.axis == "x":
        at = frame.x(limit.value)
        zone = {"x": at, "y": frame.top, "width": frame.right - at, "height": frame.bottom - frame.top}
        edge = line(at, frame.top, at, frame.bottom, "limit")
        fits = len(limit.name) * CHAR <= at - 5 - frame.left or at - frame.left >= frame.right - at
        label = text(at - 5 if fits else at + 5, frame.top + 11, limit.name, "tick", "end" if fits else "start")
    else:
        at = frame.y(limit.value)
        zone = {"x": frame.left, "y": at, "width": frame.right - frame.left, "height": frame.bottom - at}
        edge = line(frame.left, at, frame.right, at, "limit")
        label = text(frame.left + 6, frame.bottom - 7, limit.name, "tick")
    return node("rect", {**zone, "class": "zone"}, hint) + edge + label


def _name(point: Point, centre: tuple[float, float], box: Box) -> Markup:
    """The name in its box, with a thin line to its point when that is not beside it."""
    cx, cy = centre
    near_x, near_y = min(max(cx, box.x0), box.x1), min(max(cy, box.y0), box.y1)
    apart = ((near_x - cx) ** 2 + (near_y - cy) ** 2) ** 0.5
    leader = line(cx, cy, near_x, near_y, "leader") if apart > 16 else Markup("")
    written = text((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2 + 4, shorten(point.name), f"label halo {hue(point.series)}", "middle")
    return leader + written


def forest(rows: Sequence[ForestRow], *, title: str, x_title: str, reference: float | None, unit: float = 1.0, suffix: str = "") -> Markup:
    """One interval per row, its numbers to the right, and a line at the value that means no change."""
    numbers = numbers_in([r.estimate for r in rows])
    if not rows or not numbers:
        return Markup("")
    labels = [shorten(r.label, 38) for r in rows]
    left = 16 + max(len(name) for name in labels) * CHAR
    right = WIDTH - 20 - max(len(r.words) for r in rows) * CHAR
    step, top = 26.0, 12.0
    bottom = top + step * len(rows) + 4
    frame = Frame(
        x=spanning(numbers, left + 8, right, include=reference, margin=0.06), y=Scale(low=0, high=len(rows) or 1, start=bottom, end=top)
    )
    parts = [x_axis(frame, x_title, most=max(2, int((right - left) / 75)), unit=unit, suffix=suffix)]
    if reference is not None:
        parts.append(line(frame.x(reference), top, frame.x(reference), bottom, "reference"))
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + step * (index + 0.5) + 2
        parts += [text(0, y + 4, label, "label"), text(WIDTH - 4, y + 4, row.words, "value", "end")]
        if row.estimate.value is None:
            continue
        x = frame.x(row.estimate.value)
        for bound, edge in ((row.estimate.low, frame.left), (row.estimate.high, frame.right)):
            end = edge if bound is None else frame.x(bound)
            parts.append(whisker(x, y, end, y, row.series, known=bound is not None))
        parts.append(marker(x, y, row.series, f"{row.label}: {row.words}", 5))
    return picture(WIDTH, bottom + (48 if x_title else 26), title, *parts)


def rounds(series: Sequence[RoundSeries], *, title: str, y_title: str) -> Markup:
    """The ratio of every round in time order, a panel per treatment on one common scale: drift shows as a slope."""
    shown = [s for s in series if s.ratios]
    if not shown:
        return Markup("")
    across = 1 if len(shown) == 1 else 2
    gap, tall, head = 30.0, 118.0, 30.0
    wide = (WIDTH - 46 - gap * (across - 1) - (across - 1) * 30) / across
    down = -(-len(shown) // across)
    y = spanning_ratios([r for s in shown for r in s.ratios] + numbers_in([s.estimate for s in shown]), 0, 1)
    parts = [text(0, 12, y_title, "axis-title")]
    for index, one in enumerate(shown):
        left = 44 + (index % across) * (wide + gap + 30)
        top = 22 + (index // across) * (tall + head + 34) + head
        bottom = top + tall
        count = len(one.ratios)
        frame = Frame(
            x=Scale(low=0.0, high=count + 1.0, start=left, end=left + wide),
            y=Scale(low=y.low, high=y.high, start=bottom, end=top, kind=y.kind),
        )
        parts.append(_panel(frame, one))
    height = 22 + down * (tall + head + 34) + 8
    return picture(WIDTH, height, title, *parts)


def _panel(frame: Frame, one: RoundSeries) -> Markup:
    count = len(one.ratios)
    ticks = [t for t in frame.x.ticks(6) if t == int(t) and 1 <= t <= count] or [1.0]
    if ticks[0] != 1 and frame.x(ticks[0]) - frame.x(1) > 28:
        ticks.insert(0, 1.0)
    parts = [y_axis(frame, "", ticks=frame.y.ticks(4)), line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")]
    parts += [text(frame.x(t), frame.bottom + 16, f"{t:.0f}", anchor="middle") for t in ticks]
    parts.append(text(frame.right, frame.bottom + 31, "round", "tick", "end"))
    parts.append(text(frame.left, frame.top - 10, shorten(one.name), f"label strong {hue(one.series)}"))
    low, high = one.estimate.low, one.estimate.high
    if low is not None and high is not None:
        band = {"x": frame.left, "y": frame.y(high), "width": frame.right - frame.left, "height": max(frame.y(low) - frame.y(high), 1.0)}
        parts.append(node("rect", {**band, "class": f"band {hue(one.series)}"}))
    parts.append(line(frame.left, frame.y(1.0), frame.right, frame.y(1.0), "reference"))
    if one.estimate.value is not None:
        middle = frame.y(one.estimate.value)
        parts.append(line(frame.left, middle, frame.right, middle, f"bar {hue(one.series)}"))
    size = 3.2 if count <= 60 else 2.2
    parts += [
        marker(frame.x(i), frame.y(r), one.series, f"{one.name}, round {i}: {r:.3f}", size) for i, r in enumerate(one.ratios, start=1)
    ]
    return Markup("").join(parts)


def ecdf(curves: Sequence[Curve], *, title: str) -> Markup:
    """Share of requests answered within a time, on a logarithmic time axis."""
    shown = [c for c in curves if len(c.ms) > 0 and min(c.ms) > 0]
    if not shown:
        return Markup("")
    keys, took = legend([(c.series, c.name) for c in shown], 58, 12, WIDTH - 16)
    top, bottom = took + 40, took + 310
    low, high = min(c.ms[0] for c in shown), max(c.ms[-1] for c in shown)
    spare = 1.02 if high > low else 1.5
    x = Scale(low=low / spare, high=high * spare, start=58, end=WIDTH - 16, kind="log")
    frame = Frame(x=x, y=Scale(low=0.0, high=1.0, start=bottom, end=top))
    ticks = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
    axes = x_axis(frame, "latency, ms (logarithmic)", most=9)
    axes += y_axis(frame, "share of requests answered within", ticks=ticks, form=lambda t: f"{t:.0%}".replace("%", " %"))
    paths = [_steps(frame, curve) for curve in shown]
    return picture(WIDTH, bottom + 48, title, keys, axes, *paths)


def _steps(frame: Frame, curve: Curve) -> Markup:
    steps = "".join(f"H{frame.x(ms):.1f}V{frame.y(share):.1f}" for ms, share in zip(curve.ms, curve.share, strict=True))
    path = f"M{frame.x(curve.ms[0]):.1f} {frame.bottom:.1f}{steps}H{frame.right:.1f}"
    return node("path", {"d": path, "class": f"curve {hue(curve.series)}"}, node("title", {}, curve.name))
