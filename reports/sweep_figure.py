"""A sweep as one picture that stands alone: latency against rate, with the limit and the rates between which it is broken."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from ..profile.load.result import ModelSweep, RatePoint, Sweep
from .charts import WIDTH
from .scale import Scale
from .svg import Frame, hue, legend, line, marker, node, picture, text, whisker, x_axis, y_axis

Attributes = dict[str, str | float]
_STYLE = Path(__file__).parent / "templates" / "page.css"
_HEIGHT, _LEFT, _TOP, _BOTTOM = 420.0, 66.0, 66.0, 372.0


def sweep_svg(sweep: Sweep) -> str:
    """Every trial's first limited quantile with its interval; a band per model from the highest rate that keeps the limits to the lowest
    that does not. Empty when there is no trial."""
    points = [point for model in sweep.models for point in model.points]
    values = [ms for point in points for ms in _known(point) if ms > 0]
    if not values:
        return ""
    limit = sweep.limits[0]
    low, high = min([*values, limit.limit_ms]) / 1.3, max([*values, limit.limit_ms]) * 1.3
    frame = Frame(
        x=Scale(low=0.0, high=max(point.rate_per_s for point in points) * 1.06, start=_LEFT, end=WIDTH - 16),
        y=Scale(low=low, high=high, start=_BOTTOM, end=_TOP, kind="log"),
    )
    title = f"{limit.quantile} of latency against rate on {sweep.provenance.instance} ({sweep.provenance.how})"
    names, _ = legend([(number, model.model.name) for number, model in enumerate(sweep.models)], _LEFT, 20, WIDTH - 16)
    parts = [
        Markup("<style>{}</style>").format(Markup(_style())),
        names,
        y_axis(frame, f"{limit.quantile}, ms from when a request was due"),
    ]
    parts.append(x_axis(frame, "requests per second"))
    at = frame.y(limit.limit_ms)
    zone: Attributes = {"x": frame.left, "y": frame.top, "width": frame.right - frame.left, "height": at - frame.top, "class": "zone"}
    parts += [node("rect", zone), line(frame.left, at, frame.right, at, "limit"), text(frame.left + 6, at - 6, limit.text, "tick")]
    parts += [_band(frame, number, model) for number, model in enumerate(sweep.models)]
    parts += [_point(frame, number, model.model.name, point) for number, model in enumerate(sweep.models) for point in model.points]
    return str(picture(WIDTH, _HEIGHT, title, *parts))


def _known(point: RatePoint) -> list[float]:
    found = point.found_ms[0]
    return [ms for ms in (found.value, found.low, found.high) if ms is not None]


def _band(frame: Frame, series: int, model: ModelSweep) -> Markup:
    """From the highest rate that keeps the limits to the lowest that does not, or to the right edge where none was seen."""
    if model.meets_per_s is None:
        return Markup("")
    start, end = frame.x(model.meets_per_s), frame.right if model.misses_per_s is None else frame.x(model.misses_per_s)
    words = "?" if model.misses_per_s is None else f"{model.misses_per_s:.1f}"
    hint = node("title", {}, f"{model.model.name}: keeps up to {model.meets_per_s:.1f} requests/s, misses from {words}")
    box: Attributes = {
        "x": start,
        "y": frame.top,
        "width": max(end - start, 1.5),
        "height": frame.bottom - frame.top,
        "class": f"band {hue(series)}",
    }
    return node("rect", box, hint)


def _point(frame: Frame, series: int, name: str, point: RatePoint) -> Markup:
    found = point.found_ms[0]
    if found.value is None or found.value <= 0:
        return Markup("")
    x, y = frame.x(point.rate_per_s), frame.y.clamp(found.value)
    arms = [
        whisker(x, y, x, edge if bound is None else frame.y.clamp(bound), series, known=bound is not None)
        for bound, edge in ((found.low, y + 14), (found.high, y - 14))
    ]
    words = f"{name} at {point.rate_per_s:.1f}/s: {found.text(3)} ms, {point.answer}{', overloaded' if point.overload else ''}"
    return Markup("").join([*arms, marker(x, y, series, words)])


def _style() -> str:
    """The page's style sheet, so that the picture looks the same outside of it, on a ground of its own."""
    return f"{_STYLE.read_text(encoding='utf-8')} svg {{ background: var(--page); font-family: system-ui, sans-serif; }}"
