"""The parts that every chart is drawn from: nodes, axes, markers, legends. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec
from markupsafe import Markup

from .scale import Scale, tick_text

CHAR = 6.9  # px: what a character of a 12 px label takes at most on average
SERIES = 8  # colours in the style sheet; more models than that repeat them with another marker


def node(name: str, attributes: Mapping[str, str | float], *children: str) -> Markup:
    """An SVG element; attributes and text are escaped, finished Markup is not."""
    shown = ((key, f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value) for key, value in attributes.items())
    head = Markup("").join(Markup(' {}="{}"').format(key, value) for key, value in shown)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), head, Markup("").join(children))


def picture(width: float, height: float, title: str, *children: str) -> Markup:
    """A whole chart that scales with its page; `title` is read aloud in its place."""
    attributes = {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": title, "xmlns": "http://www.w3.org/2000/svg"}
    return node("svg", attributes, node("title", {}, title), *children)


def text(x: float, y: float, words: str, kind: str = "tick", anchor: str = "start") -> Markup:
    """Words at a point; `kind` is their style class."""
    return node("text", {"x": x, "y": y, "class": kind, "text-anchor": anchor}, words)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line; `kind` is its style class."""
    return node("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})


def shorten(name: str, most: int = 30) -> str:
    """At most `most` characters, cut in the middle: versions differ at both ends."""
    if len(name) <= most:
        return name
    keep = most - 1
    return f"{name[: keep - keep // 2]}…{name[-(keep // 2) :]}"


def hue(series: int) -> str:
    """Style class of a series; 0 is the control, which is grey."""
    return f"s{0 if series == 0 else (series - 1) % (SERIES - 1) + 1}"


def marker(x: float, y: float, series: int, title: str, size: float = 5.0) -> Markup:
    """A point whose shape, too, tells its series, for print and for eyes that do not see the colours."""
    kind = f"mark {hue(series)}"
    hint = node("title", {}, title)
    shape = 0 if series == 0 else (series - 1 + (series - 1) // (SERIES - 1)) % 4
    if shape == 0:
        return node("circle", {"cx": x, "cy": y, "r": size, "class": kind}, hint)
    if shape == 1:
        return node("rect", {"x": x - size, "y": y - size, "width": 2 * size, "height": 2 * size, "class": kind}, hint)
    tall = size * 1.25
    corners = [(x, y - tall), (x + tall, y + size), (x - tall, y + size)]
    if shape == 3:
        corners = [(x, y - tall), (x + tall, y), (x, y + tall), (x - tall, y)]
    return node("polygon", {"points": " ".join(f"{a:.1f},{b:.1f}" for a, b in corners), "class": kind}, hint)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """The plotting area with its two scales."""

    x: Scale
    y: Scale

    @property
    def left(self) -> float:
        return self.x.start

    @property
    def right(self) -> float:
        return self.x.end

    @property
    def top(self) -> float:
        return self.y.end

    @property
    def bottom(self) -> float:
        return self.y.start


def x_axis(frame: Frame, title: str, *, most: int = 7, unit: float = 1.0, suffix: str = "") -> Markup:
    """Grid lines, tick labels and a title under the plot; labels say the value in `unit`, with `suffix`."""
    ticks = frame.x.ticks(most)
    shown = tuple(t / unit for t in ticks)
    parts = [line(frame.x(t), frame.top, frame.x(t), frame.bottom, "grid") for t in ticks]
    words = [tick_text(t, shown) + suffix for t in shown]
    parts += [text(frame.x(t), frame.bottom + 17, w, anchor="middle") for t, w in zip(ticks, words, strict=True)]
    parts += [line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")]
    if title:
        parts.append(text((frame.left + frame.right) / 2, frame.bottom + 37, title, "axis-title", "middle"))
    return Markup("").join(parts)


def y_axis(frame: Frame, title: str, *, ticks: Sequence[float] | None = None, form: Callable[[float], str] | None = None) -> Markup:
    """The same to the left of the plot; the title stands above it, upright."""
    values = tuple(ticks) if ticks is not None else frame.y.ticks(6)
    parts = [line(frame.left, frame.y(t), frame.right, frame.y(t), "grid") for t in values]
    parts += [text(frame.left - 7, frame.y(t) + 4, form(t) if form else tick_text(t, values), anchor="end") for t in values]
    if title:
        parts.append(text(frame.left - 40, frame.top - 12, title, "axis-title"))
    return Markup("").join(parts)


def whisker(x1: float, y1: float, x2: float, y2: float, series: int, *, known: bool = True) -> Markup:
    """One arm of an error bar with its cap; dashed and open-ended where the bound is unknown."""
    kind = f"bar {hue(series)}"
    if not known:
        return line(x1, y1, x2, y2, f"{kind} open")
    cap = line(x2 - 4, y2, x2 + 4, y2, kind) if x1 == x2 else line(x2, y2 - 4, x2, y2 + 4, kind)
    return line(x1, y1, x2, y2, kind) + cap


def legend(entries: Sequence[tuple[int, str]], x: float, y: float, right: float) -> tuple[Markup, float]:
    """Markers with names, wrapped before `right`; also gives the height it took in px."""
    parts, at, row = [], x, 0
    for series, name in entries:
        label = shorten(name)
        width = 24 + len(label) * CHAR
        if at > x and at + width > right:
            at, row = x, row + 1
        parts += [marker(at + 6, y + row * 20, series, name), text(at + 17, y + 4 + row * 20, label, "label")]
        at += width
    return Markup("").join(parts), (row + 1) * 20.0
