"""From ratings to everything the chain needs: requests files and the two models, written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..core.progress import Progress
from ..core.requests import Requests
from .dataset import Dataset, first_users
from .requests import RATED_PER_REQUEST, Popularity, requests_of
from .scale import Scale
from .split import POWER, Split, recent_of_power_users, split_by_time


@dataclass(frozen=True, kw_only=True)
class Case:
    """The data as the demo uses it: split, popularity in the training part, and three disjoint sets of requests."""

    data: Dataset
    split: Split
    popularity: Popularity
    calibration: Requests
    validation: Requests
    holdout: Requests

    @property
    def summary(self) -> str:
        """Sizes in one line."""
        split = self.split
        power = sum(segment == POWER for segment in split.segments.values())
        return (
            f"{len(split.train):,} ratings to train on, {len(split.validation):,} to choose ({len(self.validation):,} requests), "
            f"{len(split.holdout):,} to judge ({len(self.holdout):,} requests); "
            f"{power} power and {len(split.segments) - power} casual users"
        )


def prepare(data: Dataset, scale: Scale, *, seed: int) -> Case:
    """Cut, split and ask."""
    if scale.users is not None:
        data = first_users(data, users=scale.users, ratings=scale.ratings)
    split = split_by_time(data.frame)
    popularity = Popularity(split.train, data.items)
    everyone = data.frame["user"].unique().tolist()
    rated = {user: set(mine["item"]) for user, (_, mine) in zip(everyone, data.frame.groupby("user"), strict=True)}

    def ask(name: str, part: pd.DataFrame, before: pd.DataFrame) -> Requests:
        return requests_of(part, before=before, popularity=popularity, rated=rated, segments=split.segments, name=name, seed=seed)

    latest = split.train.groupby("user").cumcount(ascending=False) < RATED_PER_REQUEST
    return Case(
        data=data,
        split=split,
        popularity=popularity,
        calibration=ask("calibration", split.train[latest], split.train[~latest]),
        validation=ask("validation", split.validation, split.train),
        holdout=ask("holdout", split.holdout, pd.concat([split.train, split.validation])),
    )


def train_both(case: Case, scale: Scale, folder: Path, *, seed: int, progress: Progress) -> None:
    """Write `v1.0.pt` (trained on everyone) and `v1.1.pt` (grown from it, fine-tuned on recent data of power users) into `folder`."""
    import torch  # noqa: PLC0415 - torch takes seconds to import

    from .ranker import Ranker, grow  # noqa: PLC0415
    from .training import examples_of, save, train  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        base = Ranker(users=case.data.users, items=case.data.items, dim=scale.dim, hidden=scale.hidden)
        everyone = examples_of(case.split.train)
        train(base, everyone, case.popularity, scale.base, seed=seed, what="training v1.0", progress=progress)
        save(base, folder / "v1.0.pt")
        tuned = grow(base, hidden=scale.grown, attention=scale.attention)
        recent = examples_of(case.split.train, recent_of_power_users(case.split))
        train(tuned, recent, case.popularity, scale.tuning, seed=seed + 1, what="fine-tuning v1.1", progress=progress)
        save(tuned, folder / "v1.1.pt")
