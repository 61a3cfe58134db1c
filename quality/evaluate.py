"""Evaluate a model's ranking on labelled requests, per user, overall and per segment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from ..core import columns
from ..core.artifact import ModelArtifact, ModelRef
from ..core.errors import InputError
from ..core.progress import Progress, silent
from ..core.requests import Requests, RequestsRef
from ..core.store import Store
from ..runtime.session import Session, SessionSettings, open_session, scores_of
from .bootstrap import Paired, mean_over_users, paired_over_users
from .metrics import PerUser, Ranking, parse_metric
from .result import MetricValue, Quality, QualityChange

METRICS = ("ndcg@10", "auc")
_REPORT_EVERY = 64


class SegmentUsers(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's value per user on one segment (`all` for everyone)."""

    segment: str
    per_user: PerUser


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Per-user values of one model: what estimates are made from, and what two models are paired by."""

    model: ModelRef
    requests: RequestsRef
    parts: tuple[SegmentUsers, ...]
    seed: int

    def quality(self) -> Quality:
        """Mean and interval of every metric on every segment."""
        values = []
        for number, part in enumerate(self.parts):
            found = part.per_user
            values.append(
                MetricValue(
                    metric=found.metric,
                    segment=part.segment,
                    users=len(found.users),
                    requests=found.requests,
                    undefined_requests=found.undefined_requests,
                    estimate=mean_over_users(found.values, np.random.default_rng([self.seed, number])).estimate(),
                )
            )
        return Quality(model=self.model, requests=self.requests, metrics=tuple(values), seed=self.seed)


class PairedPart(msgspec.Struct, frozen=True, kw_only=True):
    """One metric on one segment under both models, with its resamples: what a quality gate decides on."""

    metric: str
    segment: str
    paired: Paired

    def change(self) -> QualityChange:
        """The estimates, without the resamples."""
        return QualityChange(
            metric=self.metric,
            segment=self.segment,
            users=self.paired.ratio.users,
            control=self.paired.control.estimate(),
            treatment=self.paired.treatment.estimate(),
            difference=self.paired.difference.estimate(),
            ratio=self.paired.ratio.estimate(),
        )


def evaluate(
    model: str | Path | ModelArtifact | Session,
    requests: Requests | Path | str,
    *,
    metrics: Sequence[str] = METRICS,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Quality:
    """Ranking quality of `model` on labelled requests: mean over users with a 95 % interval, overall and per segment.

    Raises InputError when the requests carry no labels or do not fit the model, and when the model gives NaN scores.
    """
    return evaluate_users(model, requests, metrics=metrics, seed=seed, store=store, threads=threads, progress=progress).quality()


def evaluate_users(
    model: str | Path | ModelArtifact | Session,
    requests: Requests | Path | str,
    *,
    metrics: Sequence[str] = METRICS,
    seed: int = 0,
    store: Store | Path | str | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> Evaluation:
    """The same as `evaluate`, with the value of every user kept."""
    asked = Requests.load(requests)
    _labels(asked)
    for metric in metrics:
        parse_metric(metric, where="metrics")
    if isinstance(model, str | Path | ModelArtifact):
        model = open_session(model, SessionSettings(threads=threads), store=Store.of(store))
    return evaluation_of(model.ref, asked, scores_of_requests(model, asked, progress), metrics=metrics, seed=seed)


def evaluation_of(
    model: ModelRef, asked: Requests, scores: Sequence[np.ndarray], *, metrics: Sequence[str] = METRICS, seed: int = 0
) -> Evaluation:
    """The same for scores that are there already, float64 `[candidates]` per request in file order."""
    judges = [parse_metric(m, where="metrics") for m in metrics]
    everyone = Ranking.of(scores, _labels(asked), asked.user_ids, where=asked.source)
    parts = [SegmentUsers(segment=columns.ALL_SEGMENTS, per_user=judge.per_user(everyone)) for judge in judges]
    of_request = np.asarray(asked.segments or [], dtype=str)
    for segment in sorted(set(of_request.tolist())):
        some = everyone.only(of_request == segment)
        parts.extend(SegmentUsers(segment=segment, per_user=judge.per_user(some)) for judge in judges)
    return Evaluation(model=model, requests=asked.ref, parts=tuple(parts), seed=seed)


def _labels(asked: Requests) -> list[np.ndarray]:
    labels = asked.labels
    if labels is None:
        fix = "add one: a list per request, one relevance per candidate"
        raise InputError.mismatch(asked.source, expected=f"a column '{columns.LABEL}' to judge rankings by", found="none", fix=fix)
    return labels


def pair(control: Evaluation, treatment: Evaluation) -> tuple[PairedPart, ...]:
    """Both models on the same users, metric by metric and segment by segment.

    Both must come from the same requests and metrics; which users are defined follows from the labels, so they match by construction.
    """
    found = []
    for number, (a, b) in enumerate(zip(control.parts, treatment.parts, strict=True)):
        if (a.segment, a.per_user.metric, a.per_user.users) != (b.segment, b.per_user.metric, b.per_user.users):
            raise AssertionError("evaluations of different requests cannot be paired")
        rng = np.random.default_rng([control.seed, number])
        found.append(
            PairedPart(metric=a.per_user.metric, segment=a.segment, paired=paired_over_users(a.per_user.values, b.per_user.values, rng))
        )
    return tuple(found)


def scores_of_requests(session: Session, requests: Requests, progress: Progress = silent) -> list[np.ndarray]:
    """Scores of every request, float64 `[candidates]` each, in file order; raises InputError for NaN."""
    total, what = len(requests), f"ranking with {session.ref.name}"
    scores = []
    for number, (request_id, feeds) in enumerate(zip(requests.request_ids, requests.feeds(session.signature), strict=True)):
        scores.append(scores_of(session, feeds, where=f"{session.ref.name}: request '{request_id}'"))
        if number % _REPORT_EVERY == 0 or number + 1 == total:
            progress(what, number + 1, total)
    return scores
