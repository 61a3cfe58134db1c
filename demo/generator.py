"""Ratings made up by a seeded generator, for a demo without any data: Zipf popularity, latent tastes, power and casual users.

The frame has the shape of ml-latest-small: about 610 users, 9,700 items and 100,000 ratings, the least active user with 20 ratings and
the most active fifth with about two thirds of all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .dataset import Dataset, dataset_of

_TASTES = 6
_ZIPF = 1.1
_POWER_SHARE = 0.2
_FIRST_SECOND = 1_400_000_000
_YEAR = 365 * 86_400


def generate(*, seed: int, users: int = 610, items: int = 9_700) -> Dataset:
    """Draw ratings: the same seed gives the same frame.

    Item `r` is met with probability proportional to `1 / (r + 10)^1.1` (Zipf-Mandelbrot), tilted towards the user's tastes; the rating is
    2.9 + taste match + item quality + user mood + noise, rounded to half stars. Power users' tastes are more niche than casual users'.
    """
    rng = np.random.default_rng(seed)
    popularity = 1.0 / (np.arange(items) + 10.0) ** _ZIPF
    tastes = rng.normal(size=(items, _TASTES)) / np.sqrt(_TASTES)
    quality = rng.normal(scale=0.35, size=items)
    frames = []
    for user in range(1, users + 1):
        power = rng.random() < _POWER_SHARE
        count = 20 + int(rng.lognormal(5.95, 0.7) if power else rng.lognormal(3.5, 1.0))
        count = min(count, items // 4)
        liking = rng.normal(size=_TASTES) * (1.6 if power else 1.0)
        match = tastes @ liking
        tilt = np.log(popularity) * (0.8 if power else 1.1) + 1.5 * match
        # Gumbel top-k: a draw without replacement with these weights, in random order.
        met = rng.permutation(np.argsort(-(tilt + rng.gumbel(size=items)))[:count])
        score = 2.9 + 0.45 * match[met] + quality[met] + rng.normal(scale=0.3) + rng.normal(scale=0.7, size=count)
        start = _FIRST_SECOND + int(rng.integers(0, 4 * _YEAR))
        times = start + np.cumsum(rng.exponential(40.0 if not power else 4_000.0, size=count)).astype(np.int64)
        rating = np.clip(np.round(score * 2) / 2, 0.5, 5.0)
        frames.append(pd.DataFrame({"user": user, "item": met + 1, "rating": rating, "timestamp": times}))
    ratings = pd.concat(frames, ignore_index=True)
    return dataset_of(ratings, source=f"an embedded generator, seed {seed}", generated=True)
