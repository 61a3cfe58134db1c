"""Estimates and three-way decisions from blocks of service times.

Requests of one block share what happened to the machine meanwhile, so they are not independent: every interval here counts
blocks, or shrinks the number of requests by the design effect measured between stretches of blocks, or between launches (Kish 1965).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from ..core.estimate import Estimate
from ..core.verdict import Outcome
from .samples import Nanoseconds

Launches = Sequence[Sequence[Nanoseconds]]
Floats = npt.NDArray[np.float64]

# Below this many blocks the design effect is a guess.
FEWEST_BLOCKS = 10
_STRETCHES, _LUGSAIL_FREEDOM = 4, 2 / 5
# With fewer stretches a variance says too little to be corrected, or to be called none.
_ENOUGH_FREEDOM = 10
# Liberal levels of the tests that choose what the design effect is estimated from.
_UNREMARKABLE, _POOLED = 0.10, 0.25
# Chance of deciding that "how many more" aims for.
POWER = 0.8


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One test's outcome; `p_fail` is the p-value of "the limit holds" (small means FAIL), None when there is none.

    `more` says how many times the present data would be needed to decide, None when no amount of it is known to.
    """

    outcome: Outcome
    p_fail: float | None
    more: float | None = None
    why: str = ""


def t_interval(values: Floats, level: float) -> tuple[float, float | None, float | None]:
    """Mean and Student's t interval; bounds are None for a single value."""
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


def design_effect(launches: Launches, limit_ns: float, tail: float) -> float:
    """By how much to divide the number of requests above or below `limit_ns` so that bounds at one-sided `tail` hold; at least 1.

    How many times more the share above the limit varies between stretches of rounds (a quarter of an average launch) than for independent
    requests. What disturbs a machine may last longer than a stretch; as far as stretches of half the length vary less, whole ones are taken
    to vary too little as well (lugsail batch means, Vats and Flegal 2022: 2 V - V of halves, which for independent stretches varies as the
    variance of 2 / 5 of them); few large deviations say less about a variance than many (degrees of freedom from their kurtosis,
    Satterthwaite 1946); and an effect that independent requests would show in one of ten samples counts as none: all that only where there
    are stretches enough. Between launches instead, when they vary more than their stretches explain (F test at a liberal 25 %, Bancroft
    1944). Times (t / z)^2, as the variance itself is estimated.
    """
    counts = [np.array([(np.count_nonzero(b > limit_ns), len(b)) for b in blocks], dtype=np.float64) for blocks in launches]
    stretches, halves = (_stretches(counts, number) for number in (_STRETCHES, 2 * _STRETCHES))
    effect, freedom = _overdispersion(stretches), max(1.0, len(stretches) - 1.0)
    if freedom >= _ENOUGH_FREEDOM:
        of_halves = _overdispersion(halves)
        if len(halves) > len(stretches) and effect > of_halves:
            effect, freedom = 2 * effect - of_halves, _LUGSAIL_FREEDOM * freedom
        freedom = min(freedom, _freedom_of_squares(_squares(stretches)))
        if effect <= stats.chi2.isf(_UNREMARKABLE, freedom) / freedom:
            effect = 1.0
    by_launch = np.array([c.sum(axis=0) for c in counts])
    between, between_freedom = _overdispersion(by_launch), _freedom(by_launch[:, 1])
    if len(by_launch) > 1 and between / max(effect, 1.0) > stats.f.isf(_POOLED, between_freedom, freedom):
        effect, freedom = between, between_freedom
    return 1.0 if effect <= 1.0 else effect * float(stats.t.isf(tail, freedom) / stats.norm.isf(tail)) ** 2


def _stretches(counts: Sequence[Floats], number: int) -> Floats:
    """Requests above the limit and requests in stretches of rounds, `number` of them in an average launch: float64 `[stretches, 2]`."""
    size = sum(map(len, counts)) / (number * len(counts))
    parts = [part for launch in counts for part in np.array_split(launch, min(len(launch), max(1, round(len(launch) / size))))]
    return np.array([part.sum(axis=0) for part in parts])


def _overdispersion(counts: Floats) -> float:
    """Variance of the share above the limit over that of independent requests, for counts `[groups, (above, of)]`; 1 when it is unknown.

    From the groups' deviations from the common share (linearized variance of a ratio, Kish 1965): large groups weigh as they do in it.
    """
    share = counts[:, 0].sum() / counts[:, 1].sum()
    if len(counts) < 2 or share in (0.0, 1.0):
        return 1.0
    sizes, of = counts[:, 1], counts[:, 1].sum()
    squares = _squares(counts).sum()
    # Of the true variance, as deviations are from the sample's own share: (groups - 1) / groups when they are of one size.
    seen = 1 - 2 * (sizes**3).sum() / (of * (sizes**2).sum()) + (sizes**2).sum() / of**2
    return float(squares / seen / (of * share * (1 - share)))


def _squares(counts: Floats) -> Floats:
    """Squared deviations of counts above the limit from what the common share would be: float64 `[groups]`."""
    share = counts[:, 0].sum() / counts[:, 1].sum()
    return np.asarray((counts[:, 0] - counts[:, 1] * share) ** 2)


def _freedom_of_squares(squares: Floats) -> float:
    """Degrees of freedom of the mean of these squares, 2 mean^2 n / variance: about n when they are of normal deviations; at least 1."""
    spread = float(squares.var(ddof=1))
    return math.inf if spread == 0 else max(1.0, 2 * float(squares.mean()) ** 2 * len(squares) / spread)


def _freedom(sizes: Floats) -> float:
    """Degrees of freedom of a variance between groups of unequal sizes (Satterthwaite 1946); their number less 1 when they are equal."""
    return max(1.0, float((sizes**2).sum() ** 2 / (sizes**4).sum()) - 1)


def quantile_estimate(launches: Launches, p: float, level: float = 0.95) -> Estimate:
    """Quantile `p` of all requests in ms, with an interval of order statistics at the effective sample size; `n` counts rounds.

    Ranks are those of Conover (1999, section 3.2) with n divided by the design effect. Where they lie outside the sample because processes
    differ more than requests, the spread of the launches' own quantiles gives the interval; a bound that neither can give is None.
    """
    rounds = sum(len(blocks) for blocks in launches)
    pooled = np.sort(np.concatenate([b for blocks in launches for b in blocks]))
    value = float(np.quantile(pooled, p))
    low = high = None
    if rounds >= 2:
        n = len(pooled) / design_effect(launches, _just_below(value), (1 - level) / 2)
        # Ranks are 1-based at the effective size; rank 0 and ranks beyond it do not exist.
        below, above = float(stats.binom.ppf((1 - level) / 2, int(n), p)), float(stats.binom.ppf((1 + level) / 2, int(n), p)) + 1
        low = _at_rank(pooled, below / n) if below >= 1 else None
        high = _at_rank(pooled, above / n) if above <= n else None
        if low is None or high is None:
            low, high = _between_launches(launches, p, value, level) or (low, high)
    ms = [None if v is None else v / 1e6 for v in (value, low, high)]
    return Estimate(value=ms[0], low=ms[1], high=ms[2], n=rounds, level=level)


def _between_launches(launches: Launches, p: float, value: float, level: float) -> tuple[float, float] | None:
    """`value` times and divided by exp(t s / sqrt(launches)), s of the launches' log quantiles.

    None with too few launches for quantile `p` of *them*: five processes tell about the median process, not about the worst in 20.
    """
    pooled = [np.concatenate(list(blocks)) for blocks in launches]
    if min(len(pooled), *map(len, pooled)) < max(3, requests_for(p)):
        return None
    logs = np.log([float(np.quantile(launch, p)) for launch in pooled])
    half = float(stats.t.ppf((1 + level) / 2, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs)))
    return value * math.exp(-half), value * math.exp(half)


def requests_for(p: float) -> int:
    """The fewest requests of which quantile `p` says more than their minimum or maximum would."""
    return math.ceil(1 / min(p, 1 - p) - 1e-9)


def _just_below(quantile: float) -> float:
    """So that requests exactly at the sample's quantile count as above it: with coarse clocks it is often the maximum."""
    return float(np.nextafter(quantile, 0.0))


def _at_rank(ordered: Nanoseconds, share: float) -> float:
    """The smallest observation with at least `share` of the sample at or below it."""
    return float(ordered[min(len(ordered), max(1, math.ceil(share * len(ordered)))) - 1])


def absolute_gate(launches: Launches, p: float, limit_ms: float, alpha: float) -> Decision:
    """Is quantile `p` at most `limit_ms`: exact binomial test of the share above it, at the effective sample size.

    Clopper-Pearson bounds at one-sided `alpha` with n and count divided by the design effect; the effect is the larger of those at the
    limit and at the sample's own quantile, because without a request above the limit the former says nothing. A sample far below the
    limit passes as well (`_surely_below`), however much its requests depend on each other.
    """
    blocks = [b for launch in launches for b in launch]
    if len(blocks) < FEWEST_BLOCKS:
        why = f"needs at least {FEWEST_BLOCKS} rounds, has {len(blocks)}"
        return Decision(outcome=Outcome.UNDECIDED, p_fail=None, more=FEWEST_BLOCKS / max(1, len(blocks)), why=why)
    pooled = np.concatenate(blocks)
    limit_ns, allowed = limit_ms * 1e6, 1 - p
    effect = max(design_effect(launches, at, alpha) for at in (limit_ns, _just_below(float(np.quantile(pooled, p)))))
    n = len(pooled) / effect
    above = np.count_nonzero(pooled > limit_ns) / effect
    high = 1.0 if above >= n else float(stats.beta.ppf(1 - alpha, above + 1, n - above))
    p_fail = 1.0 if above == 0 else float(stats.beta.cdf(allowed, above, n - above + 1))
    if high <= allowed or _surely_below(launches, p, limit_ns, alpha):
        return Decision(outcome=Outcome.PASS, p_fail=p_fail)
    if p_fail < alpha:
        return Decision(outcome=Outcome.FAIL, p_fail=p_fail)
    share = above / n
    clean = math.log(alpha) / math.log(1 - allowed)
    needed = clean if above == 0 else _needed(math.sqrt(share * (1 - share)), allowed - share, alpha)
    return Decision(outcome=Outcome.UNDECIDED, p_fail=p_fail, more=None if needed is None else max(needed / n, 1.0))


def _surely_below(launches: Launches, p: float, limit_ns: float, alpha: float) -> bool:
    """Whether enough rounds are clean, and the launches' worst requests far enough from the limit, that share p of both is below it.

    Rounds without any request above: (p)^rounds <= alpha (59 for p95 at 5 %). Launches: the normal one-sided tolerance bound of their log
    maxima, mean + k s with k from the noncentral t (Hahn and Meeker 1991, section 4.6).
    """
    blocks = [b for launch in launches for b in launch]
    if any((b > limit_ns).any() for b in blocks) or p ** len(blocks) > alpha or len(launches) < 3:
        return False
    maxima = np.log([max(float(b.max()) for b in launch) for launch in launches])
    count = len(maxima)
    k = float(stats.nct.ppf(1 - alpha, count - 1, stats.norm.ppf(p) * math.sqrt(count))) / math.sqrt(count)
    return float(maxima.mean() + k * maxima.std(ddof=1)) <= math.log(limit_ns)


def mean_gate(values: Floats, limit: float, alpha: float) -> Decision:
    """Is the mean of what `values` are drawn from at most `limit`: two one-sided t tests, as in non-inferiority trials.

    Used for log ratios of rounds against log(1 + margin), and for one value per launch.
    """
    if len(values) < 2:
        return Decision(outcome=Outcome.UNDECIDED, p_fail=None, more=None, why=f"needs at least 2 independent values, has {len(values)}")
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    if deviation == 0:
        return Decision(outcome=Outcome.PASS if mean <= limit else Outcome.FAIL, p_fail=1.0 if mean <= limit else 0.0)
    t = (mean - limit) / (deviation / math.sqrt(len(values)))
    p_fail, p_pass = float(stats.t.sf(t, len(values) - 1)), float(stats.t.cdf(t, len(values) - 1))
    if p_pass < alpha:
        return Decision(outcome=Outcome.PASS, p_fail=p_fail)
    if p_fail < alpha:
        return Decision(outcome=Outcome.FAIL, p_fail=p_fail)
    needed = _needed(deviation, limit - mean, alpha)
    return Decision(outcome=Outcome.UNDECIDED, p_fail=p_fail, more=None if needed is None else max(needed / len(values), 1.0))


def resampled_gate(value: float, draws: Floats, floor: float, alpha: float, users: int) -> Decision:
    """Is a statistic at least `floor`, given its bootstrap `draws`: percentile bounds at one-sided `alpha`."""
    low, high = np.quantile(draws, [alpha, 1 - alpha])
    p_fail = float((np.count_nonzero(draws >= floor) + 1) / (len(draws) + 1))
    if low >= floor:
        return Decision(outcome=Outcome.PASS, p_fail=1.0 if value >= floor else p_fail)
    if high < floor:
        return Decision(outcome=Outcome.FAIL, p_fail=p_fail)
    needed = _needed(float(draws.std(ddof=1)) * math.sqrt(users), value - floor, alpha)
    return Decision(outcome=Outcome.UNDECIDED, p_fail=p_fail, more=None if needed is None else max(needed / users, 1.0))


def _needed(deviation: float, gap: float, alpha: float) -> float | None:
    """Sample size that decides at this `gap` with 80 % power: ((z_alpha + z_power) * deviation / gap)^2; None at the limit itself."""
    if gap == 0:
        return None
    return float(((stats.norm.ppf(1 - alpha) + stats.norm.ppf(POWER)) * deviation / gap) ** 2)
