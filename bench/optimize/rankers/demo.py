"""The demo's ranker, v1.1: target attention over the history."""

from __future__ import annotations

import torch

from ....demo.ranker import AttentiveRanker
from ..case import Case, Training


def _ranker(users: int, items: int) -> torch.nn.Module:
    return AttentiveRanker(users=users, items=items, dim=64, hidden=(512, 256), attention=32)


CASES = (
    Case(
        name="demo",
        package="liftgate",
        request_inputs=("user", "history"),
        candidate_inputs=("item",),
        build=_ranker,
        training=Training(loss="logit", epochs=3),
    ),
)
