"""What a person asks to have measured, resolved and checked before anything is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from ..core import columns
from ..core.artifact import ModelArtifact
from ..core.errors import InputError, UnknownName
from ..core.requests import Requests
from ..core.signature import InputSpec, Signature
from ..core.store import Store
from ..runtime.session import SessionSettings, open_session
from .budget import Budget, Conditions, Max
from .generate import requests_from_signature
from .launch import Subject
from .machines.confine import limit_memory
from .machines.instance import Placement, find_instance
from .machines.placement import place
from .machines.recognise import recognise

Model = str | Path | ModelArtifact
MOST_LAUNCHES = 1000


def check_duration(seconds: float, launches: int) -> None:
    """Raise InputError unless something can be measured in that time."""
    if not 0 < seconds <= 24 * 3600:
        raise InputError.mismatch("--seconds", expected="more than 0 and at most a day", found=f"{seconds:g}")
    if not 1 <= launches <= MOST_LAUNCHES:
        raise InputError.mismatch("--launches", expected=f"1 to {MOST_LAUNCHES}", found=str(launches))


def load_subjects(models: Sequence[Model], store: Store) -> list[Subject]:
    """Resolve every model; equal names are numbered (`v1.0 (2)`), as results are told apart by name."""
    subjects = [_subject(model, store) for model in models]
    seen: Counter[str] = Counter()
    named = []
    for subject in subjects:
        seen[subject.ref.name] += 1
        count = seen[subject.ref.name]
        name = subject.ref.name if count == 1 else f"{subject.ref.name} ({count})"
        named.append(msgspec.structs.replace(subject, ref=msgspec.structs.replace(subject.ref, name=name)))
    return named


def _subject(model: Model, store: Store) -> Subject:
    if not isinstance(model, ModelArtifact) and Path(model).is_file():
        session = open_session(model, SessionSettings(), store=store)
        return Subject(ref=session.ref, path=Path(model).absolute(), signature=session.signature)
    artifact = model if isinstance(model, ModelArtifact) else store.resolve(model)
    return Subject(ref=artifact.ref(), path=artifact.path.absolute(), signature=artifact.manifest.signature)


def load_requests(requests: Requests | Path | str | None, subjects: Sequence[Subject], seed: int) -> Requests:
    """The requests to use, checked against every model's signature; a column may be there for some of the models only.

    When there are none they are generated for the inputs of all models.
    """
    wanted = _all_inputs([subject.signature for subject in subjects])
    real = requests_from_signature(wanted, seed=seed) if requests is None else Requests.load(requests)
    real.check_columns([spec.name for spec in wanted.inputs])
    for subject in subjects:
        real.restrict(subject.signature).check(subject.signature)
    return real


def _all_inputs(signatures: Sequence[Signature]) -> Signature:
    """The inputs of all models; the signature that says most about roles has the first word: a torch.export archive says nothing."""
    telling = sorted(signatures, key=lambda s: sum(spec.role == "request" for spec in s.inputs), reverse=True)
    inputs: dict[str, InputSpec] = {}
    for signature in telling:
        inputs = {**{spec.name: spec for spec in signature.inputs}, **inputs}
    return msgspec.structs.replace(telling[0], inputs=tuple(inputs.values()))


def load_placements(names: Sequence[str], threads: int | None) -> list[Placement]:
    """How to stand for every named instance, each once."""
    return [limit_memory(place(find_instance(name), threads=threads, recognised=recognise())) for name in dict.fromkeys(names)]


def check_times(budget: Budget | None, placements: Mapping[Conditions, Placement]) -> None:
    """Absolute limits on times of extrapolated instances are an error: nothing that is measured here decides them."""
    if budget is None:
        return
    for number, gate in enumerate(budget.gates, start=1):
        if gate.is_time and isinstance(gate.limit, Max) and gate.at is not None and placements[gate.at].label == "extrapolated":
            problem = f"{gate.name} is an absolute limit, and only a part of {gate.at.instance} can be imitated here"
            raise InputError(f"{budget.source}: gate {number}", problem, fix="measure on the instance itself, or give max_regress")


def check_quality(budget: Budget | None, requests: Requests) -> None:
    """Gates on quality that these requests can never decide are an error: without labels, or with a mistyped segment."""
    if budget is None:
        return
    known = {columns.ALL_SEGMENTS, *(requests.segments or [])}
    for number, gate in enumerate(budget.gates, start=1):
        where = f"{budget.source}: gate {number}"
        if gate.is_quality and requests.labels is None:
            found = "generated requests" if requests.ref.generated else f"none in {requests.source}"
            fix = "give --requests with labels, or a budget without this gate"
            raise InputError.mismatch(where, expected=f"labelled requests, which {gate.metric} needs", found=found, fix=fix)
        if gate.segment is not None and gate.segment not in known:
            raise UnknownName(where, "segment", gate.segment, known, fix=f"segments are those of {requests.source}")
