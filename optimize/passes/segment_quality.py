"""What a model keeps of another one's quality in the segment where it keeps least."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from ...core import columns
from ...core.errors import RefusedStep
from ...quality.metrics import NDCG, Floats, Ranking
from ..context import StepContext
from .sensitivity import answers

_REQUESTS = 1024


class Worst(msgspec.Struct, frozen=True):
    """A segment, and the ratio of NDCG@10 there."""

    segment: str
    ratio: float


class SegmentQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled requests with the NDCG@10 of the model before the step, mean over users per segment (`all` is one)."""

    feeds: list[dict[str, np.ndarray]]
    labels: list[Floats]
    users: list[str]
    segments: list[str]
    before: dict[str, float]

    @classmethod
    def of(cls, context: StepContext, where: str) -> SegmentQuality:
        """From up to 1,024 of the context's requests; raises RefusedStep where nothing can be judged."""
        requests = context.requests
        if requests is None or requests.labels is None:
            fix = f"add a column '{columns.LABEL}': a list per request, one relevance per candidate"
            raise RefusedStep(where, "needs labelled requests to judge quality by", fix=fix)
        if context.signature.score is None:
            fix = "export it with --score OUTPUT to say what candidates are ranked by"
            raise RefusedStep(where, "nothing says which of the model's outputs ranks candidates", fix=fix)
        chosen = requests.take(np.unique(np.linspace(0, len(requests) - 1, _REQUESTS).astype(np.int64)).tolist())
        feeds = list(chosen.feeds(context.signature))
        found = cls(
            feeds=feeds,
            labels=chosen.labels or [],
            users=chosen.user_ids,
            segments=chosen.segments or [columns.ALL_SEGMENTS] * len(feeds),
            before={},
        )
        before = {
            segment: value for segment, value in found.per_segment(answers(context.source, context.signature, feeds)).items() if value > 0
        }
        if not before:
            fix = "give requests whose labels mark at least one relevant candidate"
            raise RefusedStep(where, f"NDCG@10 of the float model is 0 or undefined on all {len(feeds)} requests", fix=fix)
        return msgspec.structs.replace(found, before=before)

    def worst(self, scores: Sequence[Floats]) -> Worst:
        """Where the model that gives `scores` keeps least of the quality before; nothing at all when a score is NaN or infinite."""
        if not all(np.isfinite(array).all() for array in scores):
            return Worst(columns.ALL_SEGMENTS, 0.0)
        after = self.per_segment(scores)
        ratios = {segment: after[segment] / value for segment, value in self.before.items()}
        segment = min(ratios, key=ratios.__getitem__)
        return Worst(segment, ratios[segment])

    def per_segment(self, scores: Sequence[Floats]) -> dict[str, float]:
        """NDCG@10 per segment with a relevant candidate, mean over its users, and of all together."""
        everyone = Ranking.of(list(scores), self.labels, self.users)
        of_request = np.asarray(self.segments, dtype=str)
        parts = {name: everyone.only(of_request == name) for name in sorted(set(self.segments))}
        values = {name: NDCG(10).per_user(part).values for name, part in {**parts, columns.ALL_SEGMENTS: everyone}.items()}
        return {name: float(value.mean()) for name, value in values.items() if len(value)}
