"""What is written down while an experiment runs: one exposure per answered request, one event per click; JSON, one per line."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal

import msgspec

EXPOSURES_FILE = "exposures.jsonl"
EVENTS_FILE = "events.jsonl"

Reason = Literal["assigned", "not_enrolled", "override", "fallback"]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Item = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Position = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Shown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of a slate: `position` from 0 at the top, `index` among the request's candidates, `item` its id, and its score."""

    position: int
    index: int
    item: int
    score: float


class Exposure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slate that a unit was given.

    `exposure_id` is a function of experiment, unit and request id, so a retry is recognised as the same exposure. Analysis goes by
    `assigned_arm` (intention to treat); `served_arm`, `model` and `digest` say who really answered, `reason` and `detail` why.
    `model_ms` is the model's share of `total_ms`, which runs from the received body to the write of this record. `candidates`
    counts the items scored, `slate` holds the best of them in order. `segment` is what the caller knew before the exposure.
    """

    exposure_id: str
    request_id: str
    ts: datetime
    experiment: str
    salt: str
    config: str
    unit: str
    bucket: int
    coverage: float
    enrolled: bool
    assigned_arm: str
    served_arm: str
    model: str
    digest: str
    reason: Reason
    detail: str
    model_ms: float
    total_ms: float
    candidates: int
    slate: tuple[Shown, ...]
    segment: str | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a unit did with a slate; `item` or `position` says which entry."""

    exposure_id: str
    kind: str
    item: int | None
    position: int | None
    ts: datetime
    received_at: datetime


class EventIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An event as a client sends it: it names its exposure by `exposure_id`, or by `request_id` and `unit`."""

    kind: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,31}$")]
    exposure_id: Id | None = None
    request_id: Id | None = None
    unit: Id | int | None = None
    item: Item | None = None
    position: Position | None = None
    ts: datetime | None = None

    def __post_init__(self) -> None:
        if self.exposure_id is None and (self.request_id is None or self.unit is None):
            raise ValueError("an event names its exposure by 'exposure_id', or by 'request_id' and 'unit'")
        if self.item is None and self.position is None:
            raise ValueError("an event says which entry of the slate it is about: 'item' or 'position'")

    def record(self, experiment: str, now: datetime) -> Event:
        """The event as it is stored."""
        exposure = self.exposure_id or exposure_id_of(experiment, str(self.unit), str(self.request_id))
        return Event(exposure_id=exposure, kind=self.kind, item=self.item, position=self.position, ts=self.ts or now, received_at=now)


def exposure_id_of(experiment: str, unit: str, request_id: str) -> str:
    """First 32 hex digits of a sha256 over the three, so that equal requests of one unit are one exposure."""
    body = msgspec.json.encode([experiment, unit, request_id])
    return hashlib.sha256(body).hexdigest()[:32]
