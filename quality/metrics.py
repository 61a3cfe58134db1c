"""Ranking metrics: small frozen objects that give one value per user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from ..core.errors import InputError, UnknownName

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Gains are 2^label - 1: beyond this a single label drowns every other in float64.
_LARGEST_LABEL = 50.0
_NAMES = ("ndcg@5", "ndcg@10", "ndcg@20", "auc")


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """Scored and labelled candidates of many requests, flattened.

    `scores` and `labels` are float64 `[rows]`, one row per candidate; `request` int64 `[rows]` is the position of the row's request,
    non-decreasing from 0; `user` int64 `[requests]` indexes `users`.
    """

    scores: Floats
    labels: Floats
    request: Ints
    user: Ints
    users: tuple[str, ...]

    @classmethod
    def of(cls, scores: Sequence[Floats], labels: Sequence[Floats], user_ids: Sequence[str], *, where: str = "requests") -> Ranking:
        """Flatten per-request arrays; raises InputError for labels below 0 or above 50."""
        sizes = [len(s) for s in scores]
        flat = np.concatenate([np.asarray(v, dtype=np.float64) for v in labels])
        if flat.size and (flat.min() < 0 or flat.max() > _LARGEST_LABEL):
            bad = flat.min() if flat.min() < 0 else flat.max()
            fix = "use 0 and 1 for clicks, or small grades (0 to 5)"
            raise InputError.mismatch(
                f"{where}: column 'label'", expected=f"relevance from 0 to {_LARGEST_LABEL:g}", found=f"{bad:g}", fix=fix
            )
        users, user = np.unique(np.asarray(user_ids, dtype=str), return_inverse=True)
        return cls(
            scores=np.concatenate([np.asarray(v, dtype=np.float64) for v in scores]),
            labels=flat,
            request=np.repeat(np.arange(len(sizes), dtype=np.int64), sizes),
            user=user.astype(np.int64),
            users=tuple(users.tolist()),
        )

    @property
    def requests(self) -> int:
        return len(self.user)

    def only(self, keep: npt.NDArray[np.bool_]) -> Ranking:
        """The requests where `keep` (bool `[requests]`) is true, and their users only."""
        rows = keep[self.request]
        users, user = np.unique(self.user[keep], return_inverse=True)
        return Ranking(
            scores=self.scores[rows],
            labels=self.labels[rows],
            request=(np.cumsum(keep) - 1)[self.request[rows]],
            user=user.astype(np.int64),
            users=tuple(self.users[u] for u in users),
        )


class PerUser(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's value for every user it can judge.

    `values` is float64 `[len(users)]`; which users are defined depends on the labels alone, so two models have the same ones.
    """

    metric: str
    users: tuple[str, ...]
    values: Floats
    requests: int
    undefined_requests: int


class NDCG(msgspec.Struct, frozen=True, tag="ndcg"):
    """Normalized discounted cumulative gain of the first `k`: per request, then mean within each user.

    Gain is 2^label - 1 and discount 1/log2(position + 1) (Burges et al. 2005). Tied scores give the expected value over all orders of
    the tied candidates (McSherry and Najork 2008), so a model cannot win by tying. Requests without a relevant candidate are undefined.
    """

    k: Annotated[int, msgspec.Meta(ge=1)] = 10

    @property
    def name(self) -> str:
        return f"ndcg@{self.k}"

    def per_request(self, ranking: Ranking) -> Floats:
        """float64 `[requests]`, NaN where no candidate is relevant."""
        gains = np.exp2(ranking.labels) - 1.0
        found = self._discounted(gains, ranking.scores, ranking)
        best = self._discounted(gains, ranking.labels, ranking)
        values = np.full(ranking.requests, np.nan)
        np.divide(found, best, out=values, where=best > 0)
        return values

    def per_user(self, ranking: Ranking) -> PerUser:
        """Mean over the user's defined requests."""
        values = self.per_request(ranking)
        defined = ~np.isnan(values)
        user = ranking.user[defined]
        count = np.bincount(user, minlength=len(ranking.users))
        total = np.bincount(user, weights=values[defined], minlength=len(ranking.users))
        keep = count > 0
        return PerUser(
            metric=self.name,
            users=tuple(u for u, k in zip(ranking.users, keep, strict=True) if k),
            values=total[keep] / count[keep],
            requests=int(defined.sum()),
            undefined_requests=int((~defined).sum()),
        )

    def _discounted(self, gains: Floats, keys: Floats, ranking: Ranking) -> Floats:
        """Expected DCG@k per request when candidates are sorted by `keys`, highest first."""
        order = np.lexsort((-keys, ranking.request))
        request, sorted_keys = ranking.request[order], keys[order]
        starts = np.searchsorted(request, np.arange(ranking.requests))
        position = np.arange(len(order)) - starts[request]
        discount = np.where(position < self.k, 1.0 / np.log2(position + 2.0), 0.0)
        tie = _runs(request, sorted_keys)
        mean_gain = np.bincount(tie, weights=gains[order]) / np.bincount(tie) if len(tie) else np.zeros(0)
        return np.bincount(request, weights=mean_gain[tie] * discount, minlength=ranking.requests).astype(np.float64)


class AUC(msgspec.Struct, frozen=True, tag="auc"):
    """Area under the ROC curve per user, all candidates of the user pooled; relevant means label > 0.

    The mean over users is GAUC without weights (Zhou et al. 2018). Ties count half; a user whose candidates are all relevant or all
    irrelevant is undefined, with all requests.
    """

    @property
    def name(self) -> str:
        return "auc"

    def per_user(self, ranking: Ranking) -> PerUser:
        """Mann-Whitney U of the relevant candidates over (relevant x irrelevant), with mid-ranks."""
        count = len(ranking.users)
        row_user = ranking.user[ranking.request]
        order = np.lexsort((ranking.scores, row_user))
        user, scores = row_user[order], ranking.scores[order]
        relevant = ranking.labels[order] > 0
        starts = np.searchsorted(user, np.arange(count))
        rank = np.arange(len(order)) - starts[user] + 1.0
        tie = _runs(user, scores)
        mid_rank = (np.bincount(tie, weights=rank) / np.bincount(tie))[tie] if len(tie) else rank
        positives = np.bincount(user[relevant], minlength=count).astype(np.float64)
        negatives = np.bincount(user[~relevant], minlength=count).astype(np.float64)
        u = np.bincount(user[relevant], weights=mid_rank[relevant], minlength=count) - positives * (positives + 1) / 2
        keep = (positives > 0) & (negatives > 0)
        judged = keep[ranking.user]
        return PerUser(
            metric=self.name,
            users=tuple(name for name, k in zip(ranking.users, keep, strict=True) if k),
            values=u[keep] / (positives[keep] * negatives[keep]),
            requests=int(judged.sum()),
            undefined_requests=int((~judged).sum()),
        )


Metric = NDCG | AUC


def _runs(group: Ints, keys: Floats) -> Ints:
    """Number of the run of equal (group, key) that each row of a sorted sequence belongs to."""
    if not len(group):
        return np.zeros(0, dtype=np.int64)
    new = np.r_[False, (group[1:] != group[:-1]) | (keys[1:] != keys[:-1])]
    return np.cumsum(new)


def parse_metric(text: str, *, where: str = "metric") -> Metric:
    """`ndcg@10` or `auc` as a metric; raises UnknownName."""
    if text == "auc":
        return AUC()
    match = re.fullmatch(r"ndcg@([1-9]\d{0,5})", text)
    if match is None:
        raise UnknownName(where, "metric", text, _NAMES)
    return NDCG(int(match[1]))
