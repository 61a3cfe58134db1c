"""How large an experiment must be, before it starts."""

from __future__ import annotations

import math

import msgspec

from ..core.errors import InputError
from .config import SMALLEST_EFFECT
from .statistics import users_per_arm

_SMALLEST_RATE = 1e-9


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Impressions and users needed per arm (equal arms) to see `effect`, relative to `baseline`, with this power."""

    baseline: float
    effect: float
    alpha: float
    power: float
    design_effect: float
    impressions_per_user: float
    impressions_per_arm: int
    users_per_arm: int


def plan(
    *,
    baseline: float,
    effect: float,
    alpha: float = 0.05,
    power: float = 0.8,
    design_effect: float = 1.0,
    impressions_per_user: float = 1.0,
) -> Plan:
    """Size an A/B test of two click-through rates, `baseline` and `baseline * (1 + effect)`.

    `design_effect` multiplies the variance of independent impressions (`analyse` reports that of an earlier experiment; 1
    means that a user's impressions have nothing in common, which is never quite true). Raises InputError for rates outside 0 to 1, and
    for numbers so extreme that no experiment could follow from them.
    """
    if not SMALLEST_EFFECT <= abs(effect) < math.inf:
        raise InputError.mismatch("plan", expected=f"an effect of at least {SMALLEST_EFFECT:g}, up or down", found=f"{effect:g}")
    other = baseline * (1 + effect)
    if not (_SMALLEST_RATE <= baseline < 1 and _SMALLEST_RATE <= other < 1):
        expected = f"rates between 0 and 1 (from {_SMALLEST_RATE:g} on)"
        raise InputError.mismatch("plan", expected=expected, found=f"{baseline:g} and {other:g}")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 1e-9 <= value <= 1 - 1e-9:
            raise InputError.mismatch(f"--{name}", expected="a number between 0 and 1 (not nearer than 1e-9)", found=f"{value:g}")
    for name, value in (("design-effect", design_effect), ("impressions-per-user", impressions_per_user)):
        if not 1e-6 <= value <= 1e9:
            raise InputError.mismatch(f"--{name}", expected="a number from 1e-6 to 1e9", found=f"{value:g}")
    scale = design_effect
    impressions = users_per_arm(
        baseline * (1 - baseline) * scale, other * (1 - other) * scale, abs(other - baseline), alpha=alpha, power=power
    )
    return Plan(
        baseline=baseline,
        effect=effect,
        alpha=alpha,
        power=power,
        design_effect=design_effect,
        impressions_per_user=impressions_per_user,
        impressions_per_arm=impressions,
        users_per_arm=math.ceil(impressions / impressions_per_user),
    )
