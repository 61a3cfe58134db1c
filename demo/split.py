"""Which ratings are learned from, which choose among candidates, and which judge.

A cut at one moment of calendar time would be the purest split, but users of ml-latest-small come in one burst and leave: of 610 users only
28 have five ratings before the 80 % cut and any after it. So every user's ratings are cut in that user's own time order: the earliest are
trained on, the next are `validation`, the last are `holdout`. What this gives up: the model may learn from what *other* users did at a
later date. What it keeps: no rating of validation or holdout is trained on, counted for popularity or used for a segment, and a user's
history at a request holds only what that user rated before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.errors import InputError

POWER = "power"
CASUAL = "casual"
_FRACTION = 0.2
_MOST = 30
_POWER_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Split:
    """Three disjoint parts of the ratings; `segments` maps a user to power or casual, by activity in `train` alone."""

    train: pd.DataFrame
    validation: pd.DataFrame
    holdout: pd.DataFrame
    segments: dict[int, str]


def split_by_time(frame: pd.DataFrame, *, fraction: float = _FRACTION, most: int = _MOST) -> Split:
    """Cut every user's ratings, sorted by time: the last `fraction` (2 to `most` of them) is holdout, as many before it validation.

    Raises InputError when a user has fewer than six ratings, which leaves too little to learn from.
    """
    counts = frame.groupby("user")["item"].transform("size").to_numpy()
    if counts.min() < 6:
        user = frame["user"].to_numpy()[counts.argmin()]
        raise InputError.mismatch(f"user {user}", expected="at least 6 ratings", found=f"{counts.min()}", fix="leave out users with fewer")
    held = np.clip(np.round(counts * fraction), 2, most).astype(int)
    from_end = counts - 1 - frame.groupby("user").cumcount().to_numpy()
    train = frame[from_end >= 2 * held].reset_index(drop=True)
    validation = frame[(from_end >= held) & (from_end < 2 * held)].reset_index(drop=True)
    holdout = frame[from_end < held].reset_index(drop=True)
    return Split(train=train, validation=validation, holdout=holdout, segments=segments_by_activity(train))


def segments_by_activity(train: pd.DataFrame, *, share: float = _POWER_SHARE) -> dict[int, str]:
    """The most active `share` of users is `power`, everyone else `casual`; equally active users stand on the same side."""
    activity = train.groupby("user").size().sort_values(ascending=False)
    least = activity.iloc[max(0, round(len(activity) * share) - 1)]
    numbers = activity.index.to_numpy().tolist()
    return {user: POWER if count >= least else CASUAL for user, count in zip(numbers, activity.tolist(), strict=True)}


def recent_of_power_users(split: Split, *, share: float = 0.5) -> pd.DataFrame:
    """The last `share` of each power user's training ratings: what v1.1 is fine-tuned on."""
    power = split.train[split.train["user"].map(split.segments) == POWER]
    counts = power.groupby("user")["item"].transform("size").to_numpy()
    position = power.groupby("user").cumcount().to_numpy()
    return power[position >= np.floor(counts * (1 - share))].reset_index(drop=True)
