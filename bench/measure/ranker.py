"""The model that liftgate and its peers measure here: about a millisecond per request on one thread."""

from __future__ import annotations

from ...core.artifact import ModelArtifact
from ...core.requests import Requests
from ...core.store import Store
from ..ranker import make_model, make_requests

_WIDTH, _REQUESTS = 64, 64


def model_and_requests(store: Store) -> tuple[ModelArtifact, Requests]:
    """The ranker in `store`, and the requests it is asked."""
    return make_model("one-ms", _WIDTH, store), make_requests(_REQUESTS)
