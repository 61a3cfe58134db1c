"""Does a variant still rank as the original does: NDCG@10 paired by user, and the order of every request."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

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
_STAGES = (500, 2000)
# Scores that differ by less than this share of their spread differ by rounding: more requests would say the same of them.
_ROUNDING = 1e-4
# A peer whose remaining requests would take longer is believed: it counts unless what was asked says otherwise.
_PATIENCE_S = 120.0
_SCORES_KEPT = 24
_ITEM = InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate")
_SIGNATURE = Signature(inputs=(_ITEM,), outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),))


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """NDCG@10 of a variant over that of the original, by segment (`all` for everyone), on this many requests.

    `believed` says that asking all requests would have taken too long, and that nothing so far speaks against it.
    """

    requests: int
    ratios: dict[str, Estimate]
    believed: bool = False

    @property
    def counts(self) -> bool:
        """Whether the ratio is at least 0.999 and its interval's lower end 0.995, overall and in every segment; or it is believed."""
        return self.believed or all((e.value or 0.0) >= LEAST_RATIO and (e.low or 0.0) >= LEAST_LOW for e in self.ratios.values())

    @property
    def hopeless(self) -> bool:
        """Whether a whole interval lies below the least ratio."""
        return any((e.high or 1.0) < LEAST_RATIO for e in self.ratios.values())

    @property
    def worst(self) -> str:
        """The segment with the lowest ratio."""
        return min((name for name in self.ratios if name != "all"), key=lambda name: self.ratios[name].value or 0.0, default="all")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """How many of `requests` are ordered otherwise than by the original (stable sort): any candidate, or one of the first ten.

    `largest_gap` is, over all pairs of neighbours in the variant's order that the original has the other way round, the largest
    difference of their original scores relative to the standard deviation of the request's scores, and `largest_gap_absolute` in scores:
    rounding ties are around 1e-6, and 1e-7 where scores are probabilities (a sigmoid near 0 has steps of 2^-25 in ONNX Runtime).
    `largest_difference` is the largest difference of one candidate's scores, relative to the standard deviation.
    """

    requests: int
    different: int
    different_in_ten: int
    largest_gap: float
    largest_gap_absolute: float
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
    """The final requests of a case, in an order of chance, and the scores of its original.

    Requests are judged in stages: the first of them show whether a variant differs by more than rounding, more of them whether it is
    clearly worse. All of them are asked of a variant for which neither holds, and of ours where it differs by rounding: is `exact` exact.
    """

    def __init__(self, place: CaseFolder, reference: Variant, built: Built, *, most: int | None = None) -> None:
        """`most` bounds the number of requests, for a quick look."""
        self._place, self._reference, self._built = place, reference, built
        requests = Requests.read(place.requests("holdout"))
        self._order = np.random.default_rng(0).permutation(len(requests))[:most].tolist()
        self._requests = requests.restrict(_SIGNATURE).take(self._order)
        self._stages = sorted({min(stage, len(self._order)) for stage in (*_STAGES, len(self._order))})
        self._evaluations: dict[int, Evaluation] = {}

    def judge(self, variant: Variant, built: Built) -> tuple[Kept, Order]:
        """How the variant ranks beside the original; raises RunFailed when it cannot score."""
        with _Scorer(self._place, self._reference, self._built) as original, _Scorer(self._place, variant, built) as other:
            for stage in self._stages:
                before, after = (scorer.scores(self._order[:stage], self._stages) for scorer in (original, other))
                asked = self._requests.take(range(stage))
                if stage not in self._evaluations:
                    self._evaluations[stage] = _evaluate("original", before, asked)
                parts = pair(self._evaluations[stage], _evaluate(variant.name, after, asked))
                kept = Kept(requests=stage, ratios={part.segment: part.change().ratio for part in parts})
                order = order_of(before, after)
                if (order.largest_difference < _ROUNDING and not variant.ours) or kept.hopeless:
                    break
                if not variant.ours and stage >= _STAGES[-1] and other.needs_s(self._order, stage, self._stages) > _PATIENCE_S:
                    kept = msgspec.structs.replace(kept, believed=True)
                    break
        return kept, order


class _Scorer:
    """A variant's scores, each request scored by itself; its process is started for what no earlier run has kept."""

    def __init__(self, place: CaseFolder, variant: Variant, built: Built) -> None:
        if built.path is None:
            raise AssertionError("a variant that was not built gives no scores")
        self._place, self._variant, self._path = place, variant, built.path
        self._job = job_of(place, variant)
        self._requests = place.requests("holdout")
        self._digest = f"{_digest(built.path)} {sha256_of(self._requests)}"
        self._worker: Worker | None = None

    def scores(self, some: list[int], stages: list[int]) -> Floats:
        """Scores of the requests at these positions, float64 `[requests, candidates]`; kept by the parts that end at `stages`."""
        bounds = [0, *(stage for stage in stages if stage <= len(some))]
        return np.concatenate([self._part(some[low:high]) for low, high in pairwise(bounds)])

    def needs_s(self, order: list[int], done: int, stages: list[int]) -> float:
        """Seconds that the requests after the first `done`, a stage, would take at the speed of that stage; 0 for those that are kept."""
        last = max([0, *(stage for stage in stages if stage < done)])
        took = self._file(order[last:done]).with_suffix(".seconds")
        bounds = [done, *(stage for stage in stages if stage > done)]
        missing = sum(high - low for low, high in pairwise(bounds) if not self._file(order[low:high]).is_file())
        return missing * float(took.read_text()) / (done - last) if took.is_file() else 0.0

    def _file(self, some: list[int]) -> Path:
        asked = hashlib.sha256(f"{self._digest} {some}".encode()).hexdigest()[:16]
        return self._job.folder / f"scores-{asked}.npy"

    def _part(self, some: list[int]) -> Floats:
        kept = self._file(some)
        if not kept.is_file():
            for old in sorted(self._job.folder.glob("scores-*.npy"), key=lambda file: file.stat().st_mtime)[:-_SCORES_KEPT]:
                old.unlink()
            worker, start = self._started(), time.monotonic()
            worker.ask(Score(requests=self._requests, out=kept, only=some), Scored)
            kept.with_suffix(".seconds").write_text(f"{time.monotonic() - start:.3f}")
        found: Floats = np.load(kept).astype(np.float64)
        return found

    def _started(self) -> Worker:
        if self._worker is None:
            spec = Spec(job=self._job, runner=self._variant.runner, path=self._path)
            cache, log = self._place.root / "inductor", self._job.folder / "score.log"
            self._worker = Worker(spec, self._variant.environment, cache=cache, log=log)
            self._worker.ready()
        return self._worker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._worker is not None:
            self._worker.__exit__(kind, error, trace)


def order_of(original: Floats, scores: Floats) -> Order:
    """Compare two orders of the same candidates, `[requests, candidates]` each."""
    before = np.argsort(-original, axis=1, kind="stable")
    after = np.argsort(-scores, axis=1, kind="stable")
    spread = np.maximum(original.std(axis=1), np.finfo(np.float64).tiny)
    # Along the variant's order the original's scores may only fall; where they rise, two candidates changed places.
    rises = np.maximum(np.diff(np.take_along_axis(original, after, axis=1), axis=1).max(axis=1), 0.0)
    return Order(
        requests=len(original),
        different=int((before != after).any(axis=1).sum()),
        different_in_ten=int((before != after)[:, :10].any(axis=1).sum()),
        largest_gap=float((rises / spread).max()),
        largest_gap_absolute=float(rises.max()),
        largest_difference=float((np.abs(scores - original).max(axis=1) / spread).max()),
    )


def _evaluate(name: str, scores: Floats, requests: Requests) -> Evaluation:
    return evaluate_users(RecordedSession(name, scores), requests, metrics=("ndcg@10",))


def _digest(path: Path) -> str:
    """Of a model file, or of an artifact's folder by its name, which is its digest."""
    return sha256_of(path) if path.is_file() else path.resolve().name
