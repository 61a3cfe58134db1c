"""Rows of several requests for a model whose request inputs come once per request."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ..core.errors import InputError
from ..core.signature import Signature

Feeds = Mapping[str, np.ndarray]


def request_inputs(signature: Signature) -> tuple[str, ...]:
    """Names of the inputs that a model in layout `request` takes once per request; none for one in layout `rows`."""
    return tuple(spec.name for spec in signature.inputs if spec.role == "request") if signature.layout == "request" else ()


def rows_of(feeds: Feeds) -> int:
    """The number of rows; raises InputError where inputs do not agree on it."""
    rows = {name: len(array) for name, array in feeds.items() if len(array) != 1}
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise InputError.mismatch("inputs", expected="equally many rows, or one for what is the same for all", found=found)
    return next(iter(rows.values()), 1)


def _bytes(array: np.ndarray) -> np.ndarray:
    """uint8 `[rows, bytes per row]`."""
    return array.reshape(len(array), math.prod(array.shape[1:])).view(np.uint8)


def by_request(feeds: Feeds, names: tuple[str, ...]) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The rows that share the values of the inputs `names`: their positions, int64 `[candidates]`, and their feeds in layout `request`."""
    rows = rows_of(feeds)
    full = {name: np.ascontiguousarray(np.broadcast_to(feeds[name], (rows, *feeds[name].shape[1:]))) for name in names}
    keys = np.concatenate([_bytes(array) for array in full.values()], axis=1)
    _, request = np.unique(keys, axis=0, return_inverse=True)
    for number in range(int(request.max(initial=-1)) + 1):
        positions = np.flatnonzero(request.reshape(-1) == number)
        yield positions, {name: full[name][positions[:1]] if name in names else array[positions] for name, array in feeds.items()}


def run_either(run: Callable[[Feeds], dict[str, np.ndarray]], feeds: Feeds, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """`run`, which takes the inputs `names` once, on one request or on the rows of several."""
    return run(feeds) if all(len(feeds[name]) == 1 for name in names) else run_rows(run, feeds, names)


def run_rows(run: Callable[[Feeds], dict[str, np.ndarray]], feeds: Feeds, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What `run`, which takes one request at a time, gives for rows of any number of them, in the order of the rows."""
    rows = rows_of(feeds)
    if not rows:
        return run(feeds)
    whole: dict[str, np.ndarray] = {}
    for positions, request in by_request(feeds, names):
        for name, array in run(request).items():
            if name not in whole:
                whole[name] = np.empty((rows, *array.shape[1:]), dtype=array.dtype)
            whole[name][positions] = array
    return whole
