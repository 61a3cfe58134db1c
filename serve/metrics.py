"""Counters and histograms in Prometheus' text format; labels name arms and versions, never users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

# Seconds. A ranker answers in milliseconds; the last ones are there to see a treatment fall behind.
BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Observations in seconds, counted into `BOUNDS_S`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))] += 1
        self.total_s += seconds


class Metrics:
    """Everything `/metrics` tells about one router; used from the event loop only."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], int] = defaultdict(int)
        self._histograms: dict[tuple[str, Labels], Histogram] = defaultdict(Histogram)

    def count(self, name: str, by: int = 1, /, **labels: str) -> None:
        """Add to a counter."""
        self._counters[name, tuple(sorted(labels.items()))] += by

    def observe(self, name: str, seconds: float, /, **labels: str) -> None:
        """Add an observation to a histogram."""
        self._histograms[name, tuple(sorted(labels.items()))].observe(seconds)

    def render(self, gauges: dict[str, float]) -> str:
        """The text of `/metrics`; `gauges` are read at this moment."""
        return "\n".join([*self._lines(gauges), ""])

    def _lines(self, gauges: dict[str, float]) -> Iterator[str]:
        said: set[str] = set()
        for (name, labels), number in sorted(self._counters.items()):
            if name not in said:
                said.add(name)
                yield f"# TYPE {name} counter"
            yield f"{name}{_braces(labels)} {number}"
        for (name, labels), histogram in sorted(self._histograms.items(), key=lambda item: item[0]):
            if name not in said:
                said.add(name)
                yield f"# TYPE {name} histogram"
            running = 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), histogram.counts, strict=True):
                running += count
                yield f"{name}_bucket{_braces((*labels, ('le', bound)))} {running}"
            yield f"{name}_sum{_braces(labels)} {histogram.total_s:.9g}"
            yield f"{name}_count{_braces(labels)} {running}"
        for name, value in gauges.items():
            yield f"# TYPE {name} gauge"
            yield f"{name} {value:g}"


def _braces(labels: Labels) -> str:
    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{key}="{escaped(value)}"' for key, value in labels) + "}" if labels else ""
