"""Does a variant still rank as the original does: NDCG@10 paired by user, and the order of every request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.artifact import ModelRef
from ...core.estimate import Estimate
from ...core.files import sha256_of
from ...core.requests import Requests
from ...core.signature import InputSpec, OutputSpec, Signature
from ...quality.evaluate import Evaluation, evaluate_users, pair
from .building import job_of
from .folder import CaseFolder
from .process import Worker
from .protocol import Score, Scored, Spec
from .variants import Built, Variant

Floats = npt.NDArray[np.float64]

LEAST_RATIO = 0.999
LEAST_LOW = 0.995
# What differs by rounding only is judged on fewer requests: 20 times as many would say the same.
_FLOAT32_REQUESTS = 500
_SCORES_KEPT = 8
_ITEM = InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate")
_SIGNATURE = Signature(inputs=(_ITEM,), outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """NDCG@10 of a variant over that of the original, by segment (`all` for everyone), on this many requests."""

    requests: int
    ratios: dict[str, Estimate]

    @property
    def counts(self) -> bool:
        """Whether the ratio is at least 0.999 and its interval's lower end 0.995, overall and in every segment."""
        return all((e.value or 0.0) >= LEAST_RATIO and (e.low or 0.0) >= LEAST_LOW for e in self.ratios.values())

    @property
    def worst(self) -> str:
        """The segment with the lowest ratio."""
        return min((name for name in self.ratios if name != "all"), key=lambda name: self.ratios[name].value or 0.0, default="all")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How many of `requests` are ordered otherwise than by the original (stable sort, all candidates).

    `largest_gap` is, over all pairs of neighbours in the variant's order that the original has the other way round, the largest
    difference of their original scores relative to the standard deviation of the request's scores: rounding ties are around 1e-6.
    `largest_difference` is the largest difference of one candidate's scores on that scale.
    """

    requests: int
    different: int
    largest_gap: float
    largest_difference: float


class RecordedSession:
    """Scores that a variant's own process gave, in the order of the requests, where an evaluation expects a model."""

    def __init__(self, name: str, scores: Floats) -> None:
        self._ref = ModelRef(name=name, digest="", runtime="recorded", size_bytes=0)
        self._scores = iter(scores)

    @property
    def ref(self) -> ModelRef:
        return self._ref

    @property
    def signature(self) -> Signature:
        return _SIGNATURE

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"score": next(self._scores)}


class Judge:
    """The final requests of a case and the scores of its original."""

    def __init__(self, place: CaseFolder, reference: Variant, built: Built, *, most: int | None = None) -> None:
        """`most` bounds the number of requests, for a quick look."""
        self._place = place
        requests = Requests.read(place.requests("holdout"))
        some = list(range(len(requests))) if most is None else _spread(len(requests), most)
        self._some = some
        self._requests = requests.restrict(_SIGNATURE)
        self.original = self.scores(reference, built, some)
        self._evaluations: dict[int, Evaluation] = {}

    def scores(self, variant: Variant, built: Built, some: list[int]) -> Floats:
        """The variant's scores of the requests at these positions, float64 `[requests, candidates]`, each request scored by itself."""
        if built.path is None:
            raise AssertionError("a variant that was not built gives no scores")
        job, requests = job_of(self._place, variant), self._place.requests("holdout")
        asked = hashlib.sha256(f"{_digest(built.path)} {sha256_of(requests)} {some}".encode()).hexdigest()[:16]
        kept = job.folder / f"scores-{asked}.npy"
        if not kept.is_file():
            for old in sorted(job.folder.glob("scores-*.npy"), key=lambda file: file.stat().st_mtime)[:-_SCORES_KEPT]:
                old.unlink()
            spec = Spec(job=job, runner=variant.runner, path=built.path)
            with Worker(spec, variant.environment, cache=self._place.root / "inductor", log=job.folder / "score.log") as worker:
                worker.ready()
                worker.ask(Score(requests=requests, out=kept, only=some), Scored)
        found: Floats = np.load(kept).astype(np.float64)
        return found

    def judge(self, variant: Variant, built: Built) -> tuple[Kept, Order]:
        """How the variant ranks beside the original; raises RunFailed when it cannot score."""
        count = min(_FLOAT32_REQUESTS, len(self._some)) if variant.float32 else len(self._some)
        at = _spread(len(self._some), count)
        scores = self.scores(variant, built, [self._some[place] for place in at])
        requests = self._requests.take([self._some[place] for place in at])
        if count not in self._evaluations:
            self._evaluations[count] = _evaluate("original", self.original[at], requests)
        parts = pair(self._evaluations[count], _evaluate(variant.name, scores, requests))
        kept = Kept(requests=count, ratios={part.segment: part.change().ratio for part in parts})
        return kept, order_of(self.original[at], scores)


def order_of(original: Floats, scores: Floats) -> Order:
    """Compare two orders of the same candidates, `[requests, candidates]` each."""
    before = np.argsort(-original, axis=1, kind="stable")
    after = np.argsort(-scores, axis=1, kind="stable")
    spread = np.maximum(original.std(axis=1), np.finfo(np.float64).tiny)
    # Along the variant's order the original's scores may only fall; where they rise, two candidates changed places.
    rises = np.diff(np.take_along_axis(original, after, axis=1), axis=1).max(axis=1)
    return Order(
        requests=len(original),
        different=int((before != after).any(axis=1).sum()),
        largest_gap=float((np.maximum(rises, 0.0) / spread).max()),
        largest_difference=float((np.abs(scores - original).max(axis=1) / spread).max()),
    )


def _evaluate(name: str, scores: Floats, requests: Requests) -> Evaluation:
    return evaluate_users(RecordedSession(name, scores), requests, metrics=("ndcg@10",))


def _spread(total: int, count: int) -> list[int]:
    return [int(place) for place in np.linspace(0, total - 1, min(count, total))]


def _digest(path: Path) -> str:
    """Of a model file, or of an artifact's folder by its name, which is its digest."""
    return sha256_of(path) if path.is_file() else path.resolve().name
