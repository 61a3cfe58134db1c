"""Click-through rates clustered by user: sums that add, and what follows from them.

Sources: the delta method for a ratio of per-user sums is Deng, Knoblich & Lu, "Applying the Delta Method in Metric Analytics",
KDD 2018, eq. 4; relative lift, its variance and the Welch degrees of freedom are gbstats' `TwoSidedTTest`; the sample size is the usual
normal approximation (Kohavi, Tang & Xu, "Trustworthy Online Controlled Experiments", ch. 17). Few clicks in the treatment are judged
under the variance of the null hypothesis: the score test of two proportions (Agresti, "Categorical Data Analysis", 3rd ed., 3.2),
clustered by user as generalised score tests are (Boos, "On Generalized Score Tests", The American Statistician 46, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from ..core.estimate import Estimate


class RatioSums(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums over `users` of clicks c, impressions k and their products: everything the analysis needs, and it adds."""

    users: int = 0
    c: float = 0.0
    k: float = 0.0
    cc: float = 0.0
    kk: float = 0.0
    ck: float = 0.0

    def __add__(self, other: RatioSums) -> RatioSums:
        return RatioSums(
            users=self.users + other.users,
            c=self.c + other.c,
            k=self.k + other.k,
            cc=self.cc + other.cc,
            kk=self.kk + other.kk,
            ck=self.ck + other.ck,
        )

    @property
    def ratio(self) -> float | None:
        """Clicks per impression; None without impressions."""
        return self.c / self.k if self.k > 0 else None

    @property
    def user_variance(self) -> float | None:
        """Variance per user of the ratio's linearisation e = (c - R k) / mean(k); divided by `users` it is the ratio's variance.

        None when it cannot be told from this data: fewer than two users, no impressions, or no variation at all (no clicks).
        """
        ratio = self.ratio
        if ratio is None or self.users < 2:
            return None
        squares = self.cc - 2 * ratio * self.ck + ratio * ratio * self.kk
        variance = squares / (self.users - 1) / (self.k / self.users) ** 2
        # Rounding leaves about 1e-16 of the terms where the exact answer is zero.
        return variance if squares > 1e-12 * (self.cc + ratio * ratio * self.kk) else None

    @property
    def design_effect(self) -> float | None:
        """The ratio's variance over what as many independent impressions would give."""
        ratio, variance = self.ratio, self.user_variance
        if ratio is None or variance is None or not 0 < ratio < 1:
            return None
        return (variance / self.users) / (ratio * (1 - ratio) / self.k)


class Difference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Treatment minus control, absolute and relative to the control; `p_value` is that of the difference being no difference."""

    absolute: Estimate
    relative: Estimate
    p_value: float | None


def ratio_estimate(sums: RatioSums, *, level: float) -> Estimate:
    """The ratio with a t interval over users."""
    from scipy import stats  # noqa: PLC0415 - half a second to import

    ratio, variance = sums.ratio, sums.user_variance
    if ratio is None or variance is None:
        return Estimate(value=ratio, low=None, high=None, n=sums.users, level=level)
    half = float(stats.t.ppf((1 + level) / 2, sums.users - 1)) * math.sqrt(variance / sums.users)
    return Estimate(value=ratio, low=ratio - half, high=ratio + half, n=sums.users, level=level)


def difference(control: RatioSums, treatment: RatioSums, *, level: float) -> Difference:
    """Welch's t on the two ratios: d = (b - a) / a with variance vb / a^2 + va b^2 / a^4 (v: variance of the ratio).

    What the data cannot give is None: a relative difference to a control without clicks, any interval where one arm has fewer than
    two users or shows no variation.
    """
    from scipy import stats  # noqa: PLC0415 - half a second to import

    n = control.users + treatment.users
    a, b = control.ratio, treatment.ratio
    absolute = None if a is None or b is None else b - a
    relative = None if a is None or b is None or a == 0 else (b - a) / a
    spread_a, spread_b = control.user_variance, treatment.user_variance
    if absolute is None or relative is None or a is None or b is None or spread_a is None or spread_b is None:
        return Difference(
            absolute=Estimate(value=absolute, low=None, high=None, n=n, level=level),
            relative=Estimate(value=relative, low=None, high=None, n=n, level=level),
            p_value=None,
        )
    va, vb = spread_a / control.users, spread_b / treatment.users
    freedom = (va + vb) ** 2 / (va**2 / (control.users - 1) + vb**2 / (treatment.users - 1))
    critical = float(stats.t.ppf((1 + level) / 2, freedom))

    def interval(value: float, error: float) -> Estimate:
        return Estimate(value=value, low=value - critical * error, high=value + critical * error, n=n, level=level)

    absolute_error, relative_error = math.sqrt(va + vb), math.sqrt(vb / a**2 + va * b**2 / a**4)
    return Difference(
        absolute=interval(absolute, absolute_error),
        relative=interval(relative, relative_error),
        p_value=float(2 * stats.t.sf(abs(relative) / relative_error, freedom)),
    )


def null_difference(control: RatioSums, treatment: RatioSums, *, level: float) -> Difference:
    """The same for a treatment with hardly any clicks, whose own variance says nothing: t = (b - a) / sqrt(v_a + v_b).

    With R the ratio of both arms together, N their users and s^2 = sum (c - R k)^2 / (N - 1) over all of them, v of an arm is
    s^2 users / impressions^2; t has N - 2 degrees of freedom. The absolute interval is that around the difference; the relative one
    is unknown.
    """
    from scipy import stats  # noqa: PLC0415 - half a second to import

    n = control.users + treatment.users
    both = control + treatment
    a, b, spread = control.ratio, treatment.ratio, both.user_variance
    if a is None or b is None or a == 0 or spread is None or n < 3:
        return difference(control, treatment, level=level)
    squares = spread * (both.k / both.users) ** 2
    error = math.sqrt(squares * sum(arm.users / arm.k**2 for arm in (control, treatment)))
    half = float(stats.t.ppf((1 + level) / 2, n - 2)) * error
    return Difference(
        absolute=Estimate(value=b - a, low=b - a - half, high=b - a + half, n=n, level=level),
        relative=Estimate(value=(b - a) / a, low=None, high=None, n=n, level=level),
        p_value=float(2 * stats.t.sf(abs(b - a) / error, n - 2)),
    )


def users_per_arm(
    control_variance: float, treatment_variance: float, delta: float, *, alpha: float, power: float, ratio: float = 1.0
) -> int:
    """Users in the treatment arm at which a two-sided test sees an absolute effect `delta` with this power.

    Variances are per user (see `RatioSums.user_variance`); `ratio` is control users per treatment user. n = (z(1-alpha/2) + z(power))^2
    (vt + vc / ratio) / delta^2.
    """
    from scipy import stats  # noqa: PLC0415 - half a second to import

    z = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power))
    return math.ceil(z**2 * (treatment_variance + control_variance / ratio) / delta**2)


def sample_ratio_p(observed: Sequence[int], shares: Sequence[float]) -> float | None:
    """Chi-square p-value that these counts came from these shares; None without any users."""
    from scipy import stats  # noqa: PLC0415 - half a second to import

    total = sum(observed)
    if total == 0:
        return None
    scale = total / sum(shares)
    return float(stats.chisquare(list(observed), [share * scale for share in shares]).pvalue)
