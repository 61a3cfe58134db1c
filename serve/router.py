"""What happens to one request: assign, predict, fall back, record, answer. Knows nothing of HTTP but the bodies."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import numpy as np

from ..core.columns import ALL_SEGMENTS
from ..core.config import explain
from ..core.errors import InputError, RunFailed, UnknownName
from ..core.signature import Signature
from ..core.spans import FALLBACK, FEATURES, INFER, NO_MARKS, PARSE, POSTPROCESS, QUEUE, RECORD, ROUTE, Marks, SpanRecorder
from ..experiment.assignment import Assignment, assign
from ..experiment.config import Experiment
from ..experiment.records import EventIn, Exposure, Reason, Shown, exposure_id_of
from .arms import LoadedArm, Prediction
from .feeds import count_candidates, feeds_for, merge_inputs, refuse_unknown
from .journal import Journal
from .metrics import Metrics
from .wire import UNREADABLE, InferRequest, Parameters, decode_request, encode_response, wanted_outputs

# The extra output: indices of the slate's items among the candidates, best first, int64 `[slate]`.
SLATE = "slate"


class Overloaded(RunFailed):
    """As many requests as may wait are waiting already."""


class NotRecorded(RunFailed):
    """The exposure could not be written, so the slate must not be shown."""


class Answer(NamedTuple):
    """Body and headers of a successful response."""

    body: bytes
    headers: list[tuple[str, str]]


class _Served(NamedTuple):
    arm: LoadedArm
    prediction: Prediction
    reason: Reason
    detail: str


def utc_now() -> datetime:
    """Wall-clock time, for records only; durations use the monotonic clock."""
    return datetime.now(tz=UTC)


class Router:
    """One experiment being served: its arms, its two journals and its metrics. Lives on one event loop."""

    def __init__(
        self,
        experiment: Experiment,
        arms: Mapping[str, LoadedArm],
        exposures: Journal,
        events: Journal,
        *,
        now: Callable[[], datetime] = utc_now,
        spans: SpanRecorder | None = None,
    ) -> None:
        self.experiment = experiment
        self.arms = dict(arms)
        self.metrics = Metrics()
        self.ready = False
        self.inputs = merge_inputs({name: arm.signature for name, arm in arms.items()})
        self.in_flight = 0
        self._exposures = exposures
        self._events = events
        self._now = now
        self._spans = spans
        self._config = experiment.digest
        outputs = [{o.name for o in arm.signature.outputs} for arm in arms.values()]
        common = set.intersection(*outputs)
        self.outputs = (*(o.name for o in self.control.signature.outputs if o.name in common and o.name != SLATE), SLATE)
        # Arms often share a signature; each different one is checked once per request.
        self._signatures: list[Signature] = []
        for arm in arms.values():
            if arm.signature not in self._signatures:
                self._signatures.append(arm.signature)

    @property
    def control(self) -> LoadedArm:
        return self.arms[self.experiment.control]

    def arm_of_version(self, version: str) -> LoadedArm:
        """The arm that serves this model version, or has this name; raises UnknownName."""
        for arm in self.arms.values():
            if version in (arm.version, arm.name):
                return arm
        known = [arm.version for arm in self.arms.values()]
        raise UnknownName(f"model '{self.experiment.name}'", "version", version, known)

    # -- inference -----------------------------------------------------------------------------------------------------------

    async def infer(self, body: bytes, *, header_length: str | None, header_user: str | None, version: str | None) -> Answer:
        """Answer an inference request; the exposure is on disk when this returns.

        `version` addresses one arm directly: that is recorded as an override and left out of the analysis. Raises InputError for a bad
        request, Overloaded, NotRecorded, and RunFailed when the control itself cannot answer.
        """
        marks = NO_MARKS if self._spans is None else self._spans.begin()
        try:
            answer = await self._infer(body, marks, header_length=header_length, header_user=header_user, version=version)
        except Exception as error:
            marks.end(error=type(error).__name__)
            raise
        marks.end()
        return answer

    async def _infer(self, body: bytes, marks: Marks, *, header_length: str | None, header_user: str | None, version: str | None) -> Answer:
        started = time.perf_counter()
        arm = None if version is None else self.arm_of_version(version)
        request, tensors = decode_request(body, header_length)
        raw = wanted_outputs(request, self.outputs)
        unit, segment = _unit_of(request, header_user), _segment_of(request)
        marks.mark(PARSE)
        feeds = self._all_feeds(tensors)
        marks.mark(FEATURES)
        self.metrics.observe("request_preprocess_seconds", time.perf_counter() - started, model_name=self.experiment.name)
        assigned = assign(self.experiment, unit)
        marks.mark(ROUTE)
        self.in_flight += 1
        try:
            served = await self._serve(assigned, feeds, arm, marks)
            marks.add(QUEUE, served.prediction.begun_ns)
            marks.add(INFER, served.prediction.ended_ns)
            exposure = self._exposure(request, assigned, served, tensors=tensors, segment=segment, started=started)
            answer = self._answer(request, raw, served, exposure)  # first: an answer that cannot be written must not be recorded
            marks.mark(POSTPROCESS)
            await self._record(exposure)
            marks.mark(RECORD)
            if marks is not NO_MARKS:
                marks.attributes = {"request_id": exposure.request_id, "arm": served.arm.name, "model": served.arm.version}
        finally:
            self.in_flight -= 1
        return answer

    def _all_feeds(self, tensors: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Feeds per different signature. All are checked, so that a bad request is refused alike in every arm."""
        refuse_unknown(tensors, self.inputs)
        return [feeds_for(tensors, signature) for signature in self._signatures]

    async def _serve(self, assigned: Assignment, feeds: list[dict[str, np.ndarray]], override: LoadedArm | None, marks: Marks) -> _Served:
        def feeds_of(arm: LoadedArm) -> dict[str, np.ndarray]:
            return feeds[self._signatures.index(arm.signature)]

        arm = override or self.arms[assigned.arm]
        reason: Reason = "override" if override else "assigned" if assigned.enrolled else "not_enrolled"
        detail = ""
        if arm is not self.control:
            failure = f"{arm.name}: overloaded"
            if not arm.full:
                try:
                    prediction = await asyncio.wait_for(arm.predict(feeds_of(arm)), self.experiment.serving.timeout_s)
                    return _Served(arm, prediction, reason, detail)
                except TimeoutError:
                    failure = f"{arm.name}: no answer within {self.experiment.serving.timeout}"
                except Exception as error:  # whatever a treatment does, the control answers and the record says why
                    failure = f"{arm.name}: {type(error).__name__}: {_first_line(error)}"
            self.metrics.count("liftgate_fallback_total", arm=arm.name, version=arm.version)
            marks.mark(FALLBACK)
            # An override that fell back stays an override: it must not enter the analysis.
            reason, detail = ("override" if override else "fallback"), failure
        if self.control.full:
            self.metrics.count("liftgate_overloaded_total", arm=self.control.name, version=self.control.version)
            raise Overloaded("router", "too many requests are waiting", fix="try again later")
        try:
            prediction = await self.control.predict(feeds_of(self.control))
        except Exception as error:
            raise RunFailed(f"model '{self.control.version}'", f"the control cannot answer: {_first_line(error)}") from error
        return _Served(self.control, prediction, reason, detail)

    def _exposure(
        self,
        request: InferRequest,
        assigned: Assignment,
        served: _Served,
        *,
        tensors: Mapping[str, np.ndarray],
        segment: str | None,
        started: float,
    ) -> Exposure:
        scores = served.prediction.scores
        order = np.argsort(-scores, kind="stable")[: self.experiment.slate]
        ids = (
            tensors[self.experiment.item]
            if self.experiment.item is not None
            else np.arange(count_candidates(tensors, self.control.signature))
        )
        request_id = request.id or str(uuid.uuid4())
        return Exposure(
            exposure_id=exposure_id_of(self.experiment.name, assigned.unit, request_id),
            request_id=request_id,
            ts=self._now(),
            experiment=self.experiment.name,
            salt=self.experiment.effective_salt,
            config=self._config,
            unit=assigned.unit,
            bucket=assigned.bucket,
            coverage=self.experiment.coverage,
            enrolled=assigned.enrolled,
            assigned_arm=assigned.arm,
            served_arm=served.arm.name,
            model=served.arm.version,
            digest=served.arm.digest,
            reason=served.reason,
            detail=served.detail,
            model_ms=served.prediction.seconds * 1e3,
            total_ms=(time.perf_counter() - started) * 1e3,
            candidates=len(scores),
            slate=tuple(Shown(position=p, index=int(i), item=int(ids[i]), score=float(scores[i])) for p, i in enumerate(order)),
            segment=segment,
        )

    async def _record(self, exposure: Exposure) -> None:
        try:
            await self._exposures.append(msgspec.json.encode(exposure) + b"\n")
        except RunFailed as error:
            raise NotRecorded(error.where, error.problem, fix=error.fix) from None
        labels = {"arm": exposure.served_arm, "version": exposure.model}
        self.metrics.count("liftgate_exposures_total", reason=exposure.reason, **labels)
        self.metrics.observe("request_predict_seconds", exposure.model_ms / 1e3, model_name=self.experiment.name)
        self.metrics.observe("liftgate_predict_seconds", exposure.model_ms / 1e3, **labels)
        self.metrics.observe("liftgate_request_seconds", exposure.total_ms / 1e3, **labels)

    def _answer(self, request: InferRequest, raw: Mapping[str, bool], served: _Served, exposure: Exposure) -> Answer:
        started = time.perf_counter()
        parameters: Parameters = {
            "exposure_id": exposure.exposure_id,
            "arm": exposure.assigned_arm,
            "enrolled": exposure.enrolled,
            "reason": exposure.reason,
        }
        outputs = {**served.prediction.outputs, SLATE: np.array([entry.index for entry in exposure.slate], dtype=np.int64)}
        names = {"name": self.experiment.name, "version": served.arm.version, "request_id": exposure.request_id}
        try:
            body, headers = encode_response(outputs, raw, **names, parameters=parameters)
        except InputError as error:
            raise RunFailed(f"model '{served.arm.version}'", f"its answer cannot be encoded: {error}") from None
        self.metrics.observe("request_postprocess_seconds", time.perf_counter() - started, model_name=self.experiment.name)
        return Answer(body, headers)

    # -- events ------------------------------------------------------------------------------------------------------------------

    async def record_events(self, body: bytes) -> int:
        """Store one event or a list of them, all or none, and return how many; on disk when this returns. Raises InputError."""
        try:
            raws = msgspec.json.decode(body, type=list[msgspec.Raw]) if body.lstrip()[:1] == b"[" else [msgspec.Raw(body)]
        except UNREADABLE as error:
            raise InputError("events", str(error)) from None
        now = self._now()
        lines = []
        for index, raw in enumerate(raws):
            try:
                event = msgspec.json.decode(raw, type=EventIn)
            except UNREADABLE as error:
                raise explain(str(error), EventIn, f"event {index}") from None
            lines.append(msgspec.json.encode(event.record(self.experiment.name, now)) + b"\n")
        if lines:
            try:
                await self._events.append(b"".join(lines))
            except RunFailed as error:
                raise NotRecorded(error.where, error.problem, fix=error.fix) from None
        self.metrics.count("liftgate_events_total", len(lines))
        return len(lines)

    def render_metrics(self) -> str:
        """The text of `/metrics`."""
        return self.metrics.render({"liftgate_in_flight": self.in_flight, "liftgate_ready": float(self.ready)})

    def close(self) -> None:
        """Flush both journals and release the models' threads."""
        self._exposures.close()
        self._events.close()
        for arm in self.arms.values():
            arm.close()


def _unit_of(request: InferRequest, header_user: str | None) -> str:
    """The user to assign: without one a request could be in another arm every time, so it is refused rather than served."""
    user = request.parameters.get("user_id", header_user)
    if user is None or isinstance(user, (bool, float)) or not 1 <= len(str(user)) <= 256:
        found = "nothing" if user is None else repr(user)[:80]
        fix = "put it into the request's parameters, or into the header x-user-id"
        raise InputError.mismatch("request: parameter 'user_id'", expected="the user's id (text or whole number)", found=found, fix=fix)
    return str(user)


def _segment_of(request: InferRequest) -> str | None:
    segment = request.parameters.get("segment")
    if segment is not None and (not isinstance(segment, str) or len(segment) > 256):
        raise InputError.mismatch("request: parameter 'segment'", expected="text", found=repr(segment)[:80])
    if segment == ALL_SEGMENTS:  # results name everybody so
        raise InputError.mismatch("request: parameter 'segment'", expected=f"another name than '{ALL_SEGMENTS}'", found=repr(segment))
    return segment


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
