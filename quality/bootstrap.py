"""Intervals by resampling users, the independent units of an offline evaluation."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from ..core.estimate import Estimate

Floats = npt.NDArray[np.float64]

RESAMPLES = 2000
# Indices drawn at once; bounds memory at about 32 MB whatever the number of users.
_CHUNK = 4_000_000


class Resampled(msgspec.Struct, frozen=True, kw_only=True):
    """A statistic, the same statistic on resampled users (float64 `[resamples]`), and the number of users.

    `draws` is empty when there are fewer than two users, or when the statistic is undefined on a resample.
    """

    value: float | None
    draws: Floats
    users: int

    def estimate(self, level: float = 0.95) -> Estimate:
        """Percentile interval (Efron 1979); the bounds are None when the users cannot give one."""
        if self.value is None or not len(self.draws):
            return Estimate(value=self.value, low=None, high=None, n=self.users, level=level)
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(value=self.value, low=float(low), high=float(high), n=self.users, level=level)


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Two models on the same users: each mean, and their difference and ratio (treatment over control) on the same resamples."""

    control: Resampled
    treatment: Resampled
    difference: Resampled
    ratio: Resampled


def resampled_means(values: Floats, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """Means of resampled rows, float64 `[resamples, columns]`, for `values` `[users, columns]`; columns share their draws."""
    users = len(values)
    step = max(1, _CHUNK // users)
    parts = []
    for start in range(0, resamples, step):
        picks = rng.integers(0, users, size=(min(step, resamples - start), users))
        parts.append(np.stack([values[:, column][picks].mean(axis=1) for column in range(values.shape[1])], axis=1))
    return np.concatenate(parts)


def mean_over_users(values: Floats, rng: np.random.Generator) -> Resampled:
    """Mean of one value per user, `[users]`."""
    if len(values) < 2:
        return Resampled(value=float(values[0]) if len(values) else None, draws=np.zeros(0), users=len(values))
    return Resampled(value=float(values.mean()), draws=resampled_means(values[:, None], rng)[:, 0], users=len(values))


def paired_over_users(control: Floats, treatment: Floats, rng: np.random.Generator) -> Paired:
    """Both models' values of the same users in the same order, `[users]` each.

    The ratio is None when the control's mean is 0, and has no bounds when it is 0 on any resample.
    """
    if len(control) != len(treatment):
        raise AssertionError("a paired comparison needs the same users on both sides")
    users = len(control)
    none = np.zeros(0)
    if users < 2:
        c, t = (float(v[0]) if users else None for v in (control, treatment))
        gap = None if c is None or t is None else t - c
        share = t / c if c and t is not None else None
        single = [Resampled(value=v, draws=none, users=users) for v in (c, t, gap, share)]
        return Paired(control=single[0], treatment=single[1], difference=single[2], ratio=single[3])
    draws = resampled_means(np.stack([control, treatment], axis=1), rng)
    c, t = float(control.mean()), float(treatment.mean())
    ratio_draws = draws[:, 1] / draws[:, 0] if (draws[:, 0] != 0).all() else none
    return Paired(
        control=Resampled(value=c, draws=draws[:, 0], users=users),
        treatment=Resampled(value=t, draws=draws[:, 1], users=users),
        difference=Resampled(value=t - c, draws=draws[:, 1] - draws[:, 0], users=users),
        ratio=Resampled(value=t / c if c else None, draws=ratio_draws, users=users),
    )
