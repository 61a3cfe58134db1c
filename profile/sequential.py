"""Is a treatment slower than a control by more than a margin: a test that may be looked at after every round.

A round gives both models the same requests in random order, so whatever the machine does for longer than a round happens to both. Per round
`d = log(quantile of the treatment / quantile of the control)`; the claim "the treatment is at most (1 + margin) times the control" is about
the median of `d`. Signs of `d - log(1 + margin)` are fair coins at that boundary, whatever the noise looks like, so a gambler who bets on
them multiplies a stake of 1 to at least 1 / alpha with probability alpha at most, at any time (Ville 1939). The bet is the mixture over all
coins that favour one side (Robbins 1970): `E = 2^(n+1) B(w+1, n-w+1) P(Beta(w+1, n-w+1) > 1/2)` after w of n.

Rounds of one pair of processes share where their memory happens to lie. A decision therefore also needs the launches to agree: Student's t
interval of the launches' median ratios must lie beyond the margin (Kalibera and Jones 2013: repeat where the variance is). Not ratios of
pooled quantiles: a machine that changes between two speeds throws a pooled median from one to the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import special, stats

from ..core.estimate import Estimate
from ..core.verdict import Outcome
from .result import Direction
from .samples import Nanoseconds
from .statistics import POWER, Decision, Launches, t_interval

Floats = npt.NDArray[np.float64]

# Two launches agree by accident too often; the t interval of two is as wide as a barn door anyway.
FEWEST_LAUNCHES = 3
# Wrongly stopping somebody's release is what makes people switch gates off.
FALSE_ALARM = 0.01


class PairedRounds(msgspec.Struct, frozen=True, kw_only=True):
    """Log ratios treatment / control of one quantile: of every round, by launch, and the median round of every launch.

    Consecutive rounds of a launch are joined until they hold twice the 1 / (1 - p) requests that the quantile needs; launches that never
    do have no rounds and no ratio.
    """

    rounds: tuple[tuple[float, ...], ...]
    launches: tuple[float, ...]

    @property
    def values(self) -> Floats:
        """All rounds in time order, float64 `[rounds]`."""
        return np.asarray([d for launch in self.rounds for d in launch], dtype=np.float64)

    def estimate(self, level: float = 0.95) -> Estimate:
        """Geometric mean of the launches' ratios with Student's t interval over them; `n` counts launches."""
        if not self.launches:
            return Estimate(value=None, low=None, high=None, n=0, level=level)
        value, low, high = t_interval(np.asarray(self.launches), level)
        bounds = [None if b is None else math.exp(b) for b in (low, high)]
        return Estimate(value=math.exp(value), low=bounds[0], high=bounds[1], n=len(self.launches), level=level)


def requests_per_round(p: float) -> int:
    """Requests that a round must hold for its quantile `p` to be more than its extreme: 4, 40 and 200 for p50, p95 and p99."""
    return math.ceil(2 / min(p, 1 - p) - 1e-9)


def paired_rounds(control: Launches, treatment: Launches, p: float) -> PairedRounds:
    """Pair two models' blocks, by launch and round, on quantile `p`."""
    needed = requests_per_round(p)
    rounds, launches = [], []
    for a, b in zip(control, treatment, strict=True):
        if sum(map(len, a)) < needed:
            continue
        ratios = _log_ratios(a, b, p, needed)
        rounds.append(ratios)
        launches.append(float(np.median(ratios)))
    return PairedRounds(rounds=tuple(rounds), launches=tuple(launches))


def _log_ratios(control: Sequence[Nanoseconds], treatment: Sequence[Nanoseconds], p: float, needed: int) -> tuple[float, ...]:
    found = []
    a: list[Nanoseconds] = []
    b: list[Nanoseconds] = []
    for left, right in zip(control, treatment, strict=True):
        a.append(left)
        b.append(right)
        if sum(map(len, a)) >= needed:
            found.append(_log_ratio(np.concatenate(a), np.concatenate(b), p))
            a, b = [], []
    return tuple(found)


def _log_ratio(control: Nanoseconds, treatment: Nanoseconds, p: float) -> float:
    return math.log(float(np.quantile(treatment, p)) / float(np.quantile(control, p)))


def log_e_value(wins: npt.ArrayLike, rounds: npt.ArrayLike) -> Floats:
    """Natural log of the stake after `wins` of `rounds`, against "a win is no likelier than a loss"; arrays of one shape."""
    w, n = np.asarray(wins, dtype=np.float64), np.asarray(rounds, dtype=np.float64)
    with np.errstate(divide="ignore"):
        above_half = np.log(special.betaincc(w + 1, n - w + 1, 0.5))
    return np.asarray((n + 1) * math.log(2) + special.betaln(w + 1, n - w + 1) + above_half, dtype=np.float64)


def sequential_p(wins: npt.NDArray[np.bool_]) -> float:
    """P-value, valid however the number of rounds was chosen, of "a win is no likelier than a loss", for bool `[rounds]` in time order."""
    if not len(wins):
        return 1.0
    best = float(log_e_value(np.cumsum(wins), np.arange(1, len(wins) + 1)).max())
    return math.exp(-max(best, 0.0))


def relative_gate(paired: PairedRounds, margin: float, alpha: float, false_alarm: float = FALSE_ALARM, *, looks: int = 1) -> Decision:
    """Is a quantile at most (1 + `margin`) times the control's: PASS is wrong at most `alpha` of the time, FAIL `false_alarm`.

    The rounds' test may be asked at any time; the t test of the launches is Bonferroni-corrected for how many `looks` are planned in all.
    `p_fail` is the larger of both p-values.
    """
    limit = math.log1p(margin)
    values, launches = paired.values, np.asarray(paired.launches)
    if len(launches) < FEWEST_LAUNCHES:
        why = f"needs at least {FEWEST_LAUNCHES} launches with enough requests, has {len(launches)}"
        return Decision(outcome=Outcome.UNDECIDED, p_fail=None, more=FEWEST_LAUNCHES / max(1, len(launches)), why=why)
    p_fail = max(sequential_p(values > limit), min(1.0, looks * _launches_p(launches - limit)))
    p_pass = max(sequential_p(values < limit), min(1.0, looks * _launches_p(limit - launches)))
    if p_pass < alpha:
        return Decision(outcome=Outcome.PASS, p_fail=p_fail)
    if p_fail < false_alarm:
        return Decision(outcome=Outcome.FAIL, p_fail=p_fail)
    return Decision(outcome=Outcome.UNDECIDED, p_fail=p_fail, more=_more(paired, limit, alpha / looks, false_alarm / looks))


def planned_looks(planned: int) -> tuple[int, ...]:
    """After how many of `planned` launches gates are looked at."""
    return tuple(sorted({min(FEWEST_LAUNCHES, planned), math.ceil(0.6 * planned), planned}))


def direction(paired: PairedRounds, false_alarm: float = FALSE_ALARM, *, looks: int = 1) -> Direction:
    """Whether the treatment is slower or faster at all; each is said wrongly at most `false_alarm` of the time.

    Launches are Bonferroni-corrected for the `looks` after which measuring might have ended.
    """
    values, launches = paired.values, np.asarray(paired.launches)
    if len(launches) < FEWEST_LAUNCHES:
        return "unclear"
    if max(sequential_p(values > 0), looks * _launches_p(launches)) < false_alarm:
        return "slower"
    if max(sequential_p(values < 0), looks * _launches_p(-launches)) < false_alarm:
        return "faster"
    return "unclear"


def _launches_p(above: Floats) -> float:
    """One-sided t test's p-value of "the mean is at most 0"."""
    mean, deviation = float(above.mean()), float(above.std(ddof=1))
    if deviation == 0:
        return 0.0 if mean > 0 else 1.0
    return float(stats.t.sf(mean / (deviation / math.sqrt(len(above))), len(above) - 1))


def _more(paired: PairedRounds, limit: float, alpha: float, false_alarm: float) -> float | None:
    """How many times the time of these launches would decide if the rest were like them; None when no time would.

    That is when they lie at the limit as far as anybody can tell, or when the luck of processes, which time does not change, hides the gap.
    """
    values, launches = paired.values, np.asarray(paired.launches)
    below = float((values < limit).mean())
    wins, level = (below, alpha) if below > 0.5 else (float((values > limit).mean()), false_alarm)
    rounds = needed_rounds(wins, level)
    luck, within = _variances(paired)
    tolerable = len(launches) * ((float(launches.mean()) - limit) / float(stats.norm.isf(level) + stats.norm.ppf(POWER))) ** 2 - luck
    if rounds is None or tolerable <= 0:
        return None
    return max(1.0, rounds / len(values), within / tolerable)


def _variances(paired: PairedRounds) -> tuple[float, float]:
    """Of launches' median ratios: between processes (their luck), and by what the rounds within a launch cannot tell."""
    total = float(np.var(paired.launches, ddof=1))
    within = min(total, float(np.mean([_variance_of_median(np.asarray(d)) for d in paired.rounds])))
    return total - within, within


def needed_rounds(share: float, alpha: float) -> int | None:
    """The fewest rounds that decide with 80 % power when each is won with probability `share`; None beyond a million."""
    if share <= 0.5:
        return None
    low, high = 1, 2
    while not _decides(high, share, alpha):
        low, high = high, high * 2
        if high > 2**20:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _decides(middle, share, alpha) else (middle, high)
    return high


def _decides(rounds: int, share: float, alpha: float) -> bool:
    """Whether even a meagre number of wins (the 20th percentile) is enough."""
    return float(log_e_value(stats.binom.ppf(1 - POWER, rounds, share), rounds)) >= -math.log(alpha)


def detectable(paired: PairedRounds, alpha: float, *, times: float = 1.0, launches: int | None = None) -> float | None:
    """The smallest margin that equal models would keep to with 80 % power, given `times` as much data of this spread; None when none is.

    From the spread of rounds around their median, made symmetric as that of equal models is, and of launches around their mean. The data
    come from as many `launches` as these unless said otherwise: longer ones, whose rounds tell their ratio better while the luck of their
    processes (what varies between launches beyond what their rounds explain) stays.
    """
    values, ratios = paired.values, np.asarray(paired.launches)
    count = len(ratios) if launches is None else launches
    if min(len(ratios), count, len(values)) < FEWEST_LAUNCHES:
        return None
    around, rounds = values - np.median(values), int(len(values) * times)
    share = _winning_share(rounds, alpha)
    if share is None:
        return None
    by_rounds = float(np.quantile(np.concatenate([around, -around]), share))
    luck, within = _variances(paired)
    error = math.sqrt((luck + within * count / (times * len(ratios))) / count)
    by_launches = float(stats.t.isf(alpha, count - 1) + stats.norm.ppf(POWER)) * error
    return math.expm1(max(by_rounds, by_launches))


def _variance_of_median(values: Floats) -> float:
    """That of a normal sample, pi / 2 times its variance by the median absolute deviation over its size; 0 for fewer than three values."""
    if len(values) < 3:
        return 0.0
    deviation = 1.4826 * float(np.median(np.abs(values - np.median(values))))
    return math.pi / 2 * deviation**2 / len(values)


def _winning_share(rounds: int, alpha: float) -> float | None:
    """The smallest share of won rounds with which `rounds` of them decide, to one part in a thousand."""
    if not _decides(max(1, rounds), 1.0, alpha):
        return None
    low, high = 0.5, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if _decides(rounds, middle, alpha) else (middle, high)
    return high
