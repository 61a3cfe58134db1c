"""How a model wants to be run: in its recipe, in its manifest, and in a session."""

from __future__ import annotations

import msgspec
import pytest
from liftgate.core.artifact import content_digest
from liftgate.core.session_defaults import SessionDefaults
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.runtime.session import SessionSettings

SIGNATURE = Signature(
    inputs=(InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate"),),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows", 1)),),
)


def test_a_model_without_session_keeps_the_digest_it_had_before_there_were_any() -> None:
    # Computed by the version of content_digest that knew no sessions.
    found = content_digest(SIGNATURE, {"model.onnx": "00"}, parent=None, recipe=None, steps=())
    assert found == "360818eec914b9a21573f3724661810b426e0b98934502398cb84d34eeeb6944"


def test_another_session_is_another_model() -> None:
    digests = {
        content_digest(SIGNATURE, {}, parent=None, recipe=None, steps=(), session=session)
        for session in (None, SessionDefaults(), SessionDefaults(arena=False), SessionDefaults(threads=2))
    }
    assert len(digests) == 4


def test_what_the_caller_says_wins() -> None:
    settings = SessionSettings(threads=4).over(SessionDefaults(threads=2, spinning=True))
    assert (settings.threads, settings.spinning, settings.arena) == (4, True, None)
    assert SessionSettings().over(None).thread_count == 1
    assert SessionSettings().over(SessionDefaults(threads=2)).thread_count == 2


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `trheads`"):
        msgspec.json.decode('{"trheads": 2}', type=SessionDefaults)
