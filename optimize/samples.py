"""Rows to compare two versions of a model on: real requests, the source's own example inputs, or generated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from ..core.requests import Requests
from ..core.signature import Signature

POOL_ROWS = 1024
_REDRAWN_ROWS = 256


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of rows: one array per input, all with the same leading dimension; `note` says where they come from."""

    pool: dict[str, np.ndarray]
    note: str

    def rows(self, count: int) -> dict[str, np.ndarray]:
        """The first `count` rows, the pool repeated when it is smaller."""
        index = np.arange(count) % self.size
        return {name: np.ascontiguousarray(array[index]) for name, array in self.pool.items()}

    def of_sizes(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Rows cut, or repeated, to these shapes: a history of another length is the start of one, or one and its start again."""
        rows = self.rows(max(shape[0] for shape in shapes.values()))
        feeds = {}
        for name, shape in shapes.items():
            array = rows[name][: shape[0]]
            for axis, size in enumerate(shape[1:], start=1):
                array = np.take(array, np.arange(size) % max(array.shape[axis], 1), axis=axis)
            feeds[name] = np.ascontiguousarray(array)
        return feeds

    @property
    def size(self) -> int:
        return len(next(iter(self.pool.values())))


def from_requests(requests: Requests, signature: Signature) -> Samples:
    """The rows of the first requests whose tensors share their trailing shapes, up to POOL_ROWS."""
    return Samples(
        pool=_pool(requests.feeds(msgspec.structs.replace(signature, layout="rows"))), note=f"rows of {Path(requests.source).name}"
    )


def from_examples(
    feeds: Mapping[str, np.ndarray], runs: Callable[[Mapping[str, np.ndarray]], bool], *, note: str, seed: int = 0
) -> Samples:
    """The example rows, and rows whose inputs are drawn independently from them, so that even four examples make many combinations.

    Inputs may depend on one another (a history and its length); where the model does not run on such combinations (`runs` says so), the
    rows stay as they are.
    """
    random = np.random.default_rng(seed)
    redrawn = {name: array[random.integers(0, len(array), _REDRAWN_ROWS)] for name, array in feeds.items()}
    both = {name: np.concatenate([array, redrawn[name]]) for name, array in feeds.items()}
    return Samples(pool=both, note=f"{note}, also recombined") if runs(both) else Samples(pool=dict(feeds), note=note)


def from_signature(signature: Signature, *, seed: int = 0) -> Samples:
    """Generated rows for a model that came without examples."""
    from ..profile.generate import requests_from_signature  # noqa: PLC0415 - only when nothing better is at hand

    generated = requests_from_signature(signature, requests=16, candidates=16, seed=seed)
    return msgspec.structs.replace(from_requests(generated, signature), note="rows generated from the signature")


def _pool(feeds: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    taken: list[dict[str, np.ndarray]] = []
    rows = 0
    for feed in feeds:
        if taken and any(array.shape[1:] != taken[0][name].shape[1:] for name, array in feed.items()):
            continue
        taken.append(feed)
        rows += len(next(iter(feed.values())))
        if rows >= POOL_ROWS:
            break
    return {name: np.concatenate([feed[name] for feed in taken])[:POOL_ROWS] for name in taken[0]}
