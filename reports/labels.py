"""Where to write the names of points that lie close together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Box(msgspec.Struct, frozen=True):
    """A rectangle in px, `x0 <= x1` and `y0 <= y1`."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Shared area in px²."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        tall = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(wide, 0.0) * max(tall, 0.0)

    def within(self, other: Box) -> bool:
        return self.x0 >= other.x0 and self.y0 >= other.y0 and self.x1 <= other.x1 and self.y1 <= other.y1


_HEIGHT = 14.0
_DIRECTIONS = ((1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (1, 1), (-1, -1), (-1, 1))
_DISTANCES = (10.0, 20.0, 34.0, 50.0, 68.0, 88.0, 110.0)


def place(points: Sequence[tuple[float, float]], widths: Sequence[float], obstacles: Sequence[Box], area: Box) -> tuple[Box, ...]:
    """A box of the given width for each point's name, near its point and inside `area`.

    Names never cover each other or a point while there is room; covering an obstacle (an error bar) is avoided but allowed, because an
    error bar can be followed under a word. Greedy from left to right, nearest place first, so equal input gives equal output.
    """
    marks = [Box(x - 7, y - 7, x + 7, y + 7) for x, y in points]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: points[i]):
        best, least = None, float("inf")
        for distance in _DISTANCES:
            for direction in _DIRECTIONS:
                box = _box(points[index], widths[index], distance, direction)
                cost = distance + 0.2 * sum(box.overlap(o) for o in obstacles)
                cost += 50 * sum(box.overlap(o) for o in (*placed.values(), *marks))
                cost += 0 if box.within(area) else 1e6
                if cost < least:
                    best, least = box, cost
        if best is not None:
            placed[index] = best
    return tuple(placed[i] for i in range(len(points)))


def _box(point: tuple[float, float], width: float, distance: float, direction: tuple[int, int]) -> Box:
    x, y = point
    dx, dy = direction
    reach = distance if not (dx and dy) else distance * 0.7
    left = x + reach if dx > 0 else x - reach - width if dx < 0 else x - width / 2
    middle = y + dy * (reach + (_HEIGHT / 2 if dy else 0))
    return Box(left, middle - _HEIGHT / 2, left + width, middle + _HEIGHT / 2)
