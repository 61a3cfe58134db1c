"""Several requests in one call: in layout `rows` a call is rows, whoever they belong to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.errors import InputError
from ..core.requests import Requests
from ..core.signature import Signature

Feeds = Mapping[str, np.ndarray]


def merged(feeds: Sequence[Feeds], size: int) -> list[Feeds]:
    """`feeds` joined in groups of `size` along their rows; a last group that is not full is left out."""
    if size == 1:
        return list(feeds)
    groups = [feeds[start : start + size] for start in range(0, len(feeds) - size + 1, size)]
    return [{name: np.concatenate([one[name] for one in group]) for name in group[0]} for group in groups]


def check_mergeable(signature: Signature, requests: Requests, model: str) -> None:
    """Raise InputError unless requests of this model fit one call, naming the input that keeps them apart."""
    at = f"{model}: --batch"
    if signature.layout == "request":
        expected = "a model in layout 'rows', of which one call takes the candidates of any requests"
        found = "layout 'request': a call has one row of request inputs, so it answers one request"
        raise InputError.mismatch(at, expected=expected, found=found, fix="measure it with --batch 1, or its parent before hoisting")
    for spec in signature.inputs:
        if not isinstance(spec.shape[0], str):
            found = f"{spec.shape[0]} rows in every call"
            raise InputError.mismatch(
                f"{at}: input '{spec.name}'", expected="a number of rows that varies", found=found, fix="export it again"
            )
    shapes: dict[str, set[tuple[int, ...]]] = {}
    for feeds in requests.restrict(signature).feeds(signature):
        for name, array in feeds.items():
            shapes.setdefault(name, set()).add(array.shape[1:])
    for name, found_shapes in shapes.items():
        if len(found_shapes) > 1:
            few = ", ".join(str(list(shape)) for shape in sorted(found_shapes)[:3])
            fix = "pad it to one length in the requests, as serving would"
            raise InputError.mismatch(f"{at}: input '{name}'", expected="rows of one shape in all requests", found=few, fix=fix)
