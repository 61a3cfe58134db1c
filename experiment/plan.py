"""How large an experiment must be, before it starts."""

from __future__ import annotations

import math

import msgspec

from ..core.errors import InputError
from .statistics import users_per_arm


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
    means that a user's impressions have nothing in common, which is never quite true). Raises InputError for rates outside 0 to 1.
    """
    other = baseline * (1 + effect)
    if not (0 < baseline < 1 and 0 < other < 1 and effect != 0):
        raise InputError.mismatch("plan", expected="rates between 0 and 1 that differ", found=f"{baseline:g} and {other:g}")
    for name, value in (("alpha", alpha), ("power", power)):
        if not 0 < value < 1:
            raise InputError.mismatch(f"--{name}", expected="a number between 0 and 1", found=f"{value:g}")
    if design_effect <= 0 or impressions_per_user <= 0:
        raise InputError.mismatch(
            "plan", expected="a design effect and impressions per user above 0", found=f"{design_effect:g}, {impressions_per_user:g}"
        )
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
