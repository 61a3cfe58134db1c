"""Measuring one trial: first its time beside the parent's, then its quality on some of the users, then on all of them.

Each look is cheaper than the next, and a trial that is clearly slower or clearly breaks a floor is not looked at any further.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace as _replace

from ...core.artifact import ModelArtifact, ModelRef
from ...core.errors import LiftgateError
from ...core.estimate import Estimate
from ...core.requests import Requests
from ...core.session_defaults import Runtime
from ...core.signature import Signature
from ...core.verdict import Outcome
from ...quality.evaluate import Evaluation, evaluate_users, pair
from ...runtime.runtimes import open_model
from ...runtime.session import Session, SessionSettings, scores_of
from ..timing import LOOK_LEVEL, Clock, Contender, Feeds, Race, race
from .cache import Made
from .floors import Floors
from .result import State, Trial, latency_of

_RACE_SECONDS = 0.8
_RACE_REQUESTS = 64
# A trial whose interval lies above this is slower; one whose interval is this narrow is known well enough.
_SLOWER, _NARROW = 1.02, 1.04
_SAME = 1e-5
# Screening pays when there are users enough to see a broken floor on a third of them.
_FEWEST_SCREENED = 300
_SCREENED_SHARE = 3


class Bench:
    """What trials are measured against: the parent's speed and the base's quality on the validation requests."""

    def __init__(
        self,
        parent: ModelArtifact,
        base: ModelArtifact,
        requests: Requests,
        floors: Floors,
        *,
        settings: SessionSettings,
        seed: int,
    ) -> None:
        self._requests, self._floors, self._settings, self._seed = requests, floors, settings, seed
        self._base_ref = base.ref()
        self._parent = open_model(parent.model_path, parent.manifest.signature, parent.ref(), settings, runtime="onnxruntime")
        self._clock: Clock = time.process_time_ns if settings.thread_count == 1 else time.perf_counter_ns
        self._reference, self._factor = self._parent, 1.0
        spread = np.linspace(0, len(requests) - 1, min(_RACE_REQUESTS, len(requests))).astype(int)
        self._timed = requests.take(sorted(set(spread.tolist())))
        self._feeds: dict[str, list[Feeds]] = {}
        control = open_model(base.model_path, base.manifest.signature, base.ref(), self._settings, runtime="onnxruntime")
        some = _some_users(requests, seed)
        self._parts = [(part, self._quality(control, part)) for part in ([some, requests] if some is not None else [requests])]

    def trial(self, number: int, made: Made, runtime: Runtime, same_as: tuple[Made, Trial] | None = None) -> Trial:
        """Everything there is to know about a model on a runtime, as far as it deserved a look.

        `same_as` is a model that this one should give the scores of; where it does, on the requests that are timed, it has its quality too.
        """
        begun = time.monotonic()
        found = self._measured(number, made, runtime, same_as)
        return _replace(found, seconds=time.monotonic() - begun)

    def refer_to(self, made: Made, trial: Trial) -> None:
        """Time trials beside this model from now on, whose latency over the parent's is known.

        It is the parent after its exact steps, so whatever is slower is of no use; and where it is much faster than the parent, more blocks
        fit into a race.
        """
        ref = ModelRef(name=f"trial {trial.number}", digest=made.digest, runtime="onnxruntime", size_bytes=made.size_bytes)
        self._reference = open_model(made.path, made.signature, ref, self._settings, runtime="onnxruntime")
        self._factor = latency_of(trial)

    def beside(self, sessions: Sequence[Session], *, seconds: float) -> Race:
        """The parent and other models once more, all in turns."""
        contenders = [self._contender(session) for session in (self._parent, *sessions)]
        return race(contenders, seconds=seconds, seed=self._seed, clock=self._clock)

    def _measured(self, number: int, made: Made, runtime: Runtime, same_as: tuple[Made, Trial] | None) -> Trial:
        trial = Trial(
            number=number,
            steps=made.steps,
            runtime=runtime,
            state="failed",
            size_bytes=made.size_bytes,
            refusals=made.refusals,
            digest=made.digest,
        )
        ref = ModelRef(name=f"trial {number}", digest=made.digest, runtime=runtime, size_bytes=made.size_bytes)
        try:
            session = open_model(made.path, made.signature, ref, self._settings, runtime=runtime)
            trial = self._timed_trial(trial, session, is_parent=not made.steps and runtime == "onnxruntime")
            if trial.state == "slower":
                return trial
            if same_as is not None and self._same_scores(session, same_as[0]):
                return _quality_of(same_as[1], trial)
            return self._judged(trial, session)
        except LiftgateError as error:
            return _replace(trial, state="failed", reason=str(error))

    def _timed_trial(self, trial: Trial, session: Session, *, is_parent: bool) -> Trial:
        if is_parent:
            alone = race([self._contender(session)], seconds=_RACE_SECONDS / 4, seed=self._seed, clock=self._clock)
            return _replace(trial, state="holds", latency=Estimate(value=1.0, low=1.0, high=1.0, n=0), us=alone.median_us(0))
        contenders = [self._contender(self._reference), self._contender(session)]
        found = race(contenders, seconds=_RACE_SECONDS, seed=self._seed + trial.number, clear=_is_clear, clock=self._clock)
        ratio = found.ratio()
        timed = _replace(trial, latency=_scaled(ratio, self._factor), us=found.median_us(1))
        if ratio.low is not None and ratio.low > _SLOWER:
            return _replace(timed, state="slower", reason=f"{ratio.text(2)} times the time of {self._reference.ref.name}")
        return _replace(timed, state="holds")

    def _judged(self, trial: Trial, session: Session) -> Trial:
        """Quality on a part of the users, then on all; ends where a floor is broken beyond doubt."""
        for number, (requests, control) in enumerate(self._parts):
            parts = pair(control, self._quality(session, requests))
            margin, worst = self._floors.margin(parts)
            outcome = self._floors.verdict(self._base_ref, session.ref, parts).outcome
            last = number == len(self._parts) - 1
            state: State = "holds" if (margin >= 0 if last else outcome is not Outcome.FAIL) else "breaks a floor"
            trial = _replace(
                trial,
                state=state,
                margin=margin,
                worst=worst,
                outcome=outcome,
                overall=self._floors.overall(parts).change().ratio,
                quality=tuple(part.change() for part in parts),
                screened=not last,
                reason="" if state == "holds" else f"{worst}: {-margin:.4f} below",
            )
            if state != "holds":
                break
        return trial

    def _same_scores(self, session: Session, before: Made) -> bool:
        """Whether both give the same scores, within the rounding of float32, on the requests that are timed."""
        ref = ModelRef(name="before", digest=before.digest, runtime="onnxruntime", size_bytes=0)
        other = open_model(before.path, before.signature, ref, self._settings, runtime="onnxruntime")
        where = session.ref.name
        sides = [
            np.concatenate([scores_of(one, feeds, where=where) for feeds in self._feeds_of(one.signature)]) for one in (other, session)
        ]
        return bool(np.allclose(sides[1], sides[0], rtol=_SAME, atol=_SAME * float(np.abs(sides[0]).max(initial=0.0))))

    def _quality(self, session: Session, requests: Requests) -> Evaluation:
        mine = requests.restrict(session.signature)
        return evaluate_users(session, mine, metrics=self._floors.metrics, seed=self._seed)

    def _contender(self, session: Session) -> Contender:
        return Contender(name=session.ref.name, run=session.run, feeds=self._feeds_of(session.signature))

    def _feeds_of(self, signature: Signature) -> list[Feeds]:
        key = f"{signature.layout} {[spec.name for spec in signature.inputs]}"
        if key not in self._feeds:
            self._feeds[key] = list(self._timed.restrict(signature).feeds(signature))
        return self._feeds[key]


def _quality_of(known: Trial, trial: Trial) -> Trial:
    """`trial` with the quality of one that gives the same scores."""
    return _replace(
        trial,
        state=known.state,
        reason=known.reason,
        overall=known.overall,
        margin=known.margin,
        worst=known.worst,
        outcome=known.outcome,
        quality=known.quality,
        screened=known.screened,
    )


def _some_users(requests: Requests, seed: int) -> Requests | None:
    """The requests of a third of the users, drawn at random; None when there are too few to be worth it."""
    users = np.asarray(requests.user_ids)
    unique = np.unique(users)
    if len(unique) < _FEWEST_SCREENED:
        return None
    drawn = np.random.default_rng(seed).choice(unique, len(unique) // _SCREENED_SHARE, replace=False)
    return requests.take(np.flatnonzero(np.isin(users, drawn)).tolist())


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    bounds = (estimate.value, estimate.low, estimate.high)
    value, low, high = (None if bound is None else bound * factor for bound in bounds)
    return _replace(estimate, value=value, low=low, high=high)


def _is_clear(found: Race) -> bool:
    ratio = found.ratio(level=LOOK_LEVEL)
    if ratio.low is None or ratio.high is None:
        return False
    return ratio.low > _SLOWER or ratio.high / ratio.low < _NARROW
