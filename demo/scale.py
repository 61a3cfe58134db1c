"""How big the demo is: `full` is the worked case, `tiny` the same steps on a cut small enough for a test."""

from __future__ import annotations

from typing import Literal

import msgspec

ScaleName = Literal["full", "tiny"]


class TrainingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`negatives` unrated items are drawn by popularity for every rating; `batch` counts ratings."""

    epochs: int
    learning_rate: float
    negatives: int = 4
    batch: int = 512
    weight_decay: float = 1e-5


class Scale(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sizes of data, models and measurements.

    `users` None keeps everyone; `ratings` is the most ratings kept per user of a cut. `hidden` and `grown` are the widths of the top of
    v1.0 and v1.1, `seconds` the time to measure each instance when choosing (first) and when judging (second).
    """

    name: ScaleName
    users: int | None
    ratings: int
    dim: int
    hidden: tuple[int, int]
    grown: tuple[int, int]
    attention: int
    base: TrainingSettings
    tuning: TrainingSettings
    seconds: tuple[float, float]
    launches: int
    recipes: tuple[str, ...]


FULL = Scale(
    name="full",
    users=None,
    ratings=1_000_000,
    dim=64,
    hidden=(512, 256),
    grown=(768, 384),
    attention=32,
    base=TrainingSettings(epochs=6, learning_rate=3e-3),
    tuning=TrainingSettings(epochs=2, learning_rate=1e-3),
    seconds=(12.0, 25.0),
    launches=4,
    recipes=("exact", "int8-safe", "fastest", "int8-tuned"),
)
TINY = Scale(
    name="tiny",
    users=60,
    ratings=120,
    dim=16,
    hidden=(64, 32),
    grown=(96, 48),
    attention=16,
    base=TrainingSettings(epochs=2, learning_rate=3e-3),
    tuning=TrainingSettings(epochs=1, learning_rate=1e-3),
    seconds=(1.0, 1.0),
    launches=2,
    recipes=("exact", "int8-safe"),
)
SCALES: dict[ScaleName, Scale] = {"full": FULL, "tiny": TINY}
