"""Requests made up from a model's signature, for when nobody has real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..core import columns
from ..core.requests import Requests
from ..core.signature import InputSpec, Signature

# Where the embedding table's size is unknown, small ids are the only ones that are surely inside.
_UNKNOWN_TABLE_ROWS = 16
_UNKNOWN_LENGTH = 20


def requests_from_signature(signature: Signature, *, requests: int = 64, candidates: int = 100, seed: int = 0) -> Requests:
    """Requests that fit `signature`, with uniform random values and no labels: good for latency, useless for quality.

    Ids stay below the rows of the embedding table where the signature knows them and below 16 elsewhere, also where they are columns of a
    matrix of floats; lengths without a fixed size are 20.
    """
    data: dict[str, list[object]] = {
        columns.REQUEST_ID: [f"generated-{number}" for number in range(requests)],
        columns.USER_ID: [f"user-{number}" for number in range(requests)],
    }
    with _numpy_seeded(seed):
        for spec in signature.inputs:
            inner = [d if isinstance(d, int) else _UNKNOWN_LENGTH for d in spec.shape[1:]]
            outer = [requests, candidates] if spec.role == "candidate" else [requests]
            data[spec.name] = _random(spec, [*outer, *inner]).tolist()
    note = f"{requests} requests of {candidates} candidates generated from the signature (seed {seed}, uniform values)"
    guessed = [spec.name for spec in signature.inputs if _is_guessed(spec)]
    if guessed:
        note += f"; the id range of {', '.join(guessed)} is unknown, ids below {_UNKNOWN_TABLE_ROWS} were used"
    return Requests.of(data, source="generated", note=note)


def _is_guessed(spec: InputSpec) -> bool:
    """Whether some of its values may be ids of a table of which nobody knows the rows."""
    known = sum(column.rows_of_table is not None for column in spec.id_columns)
    if spec.dtype.startswith("float"):
        return known < len(spec.id_columns)
    return spec.dtype != "bool" and spec.rows_of_table is None and not (known and known == spec.shape[-1])


def _random(spec: InputSpec, shape: list[int]) -> np.ndarray:
    """Uniform values: ids for integers and id columns, [0, 1) for other floats, either for bool."""
    if spec.rows_of_table is None and spec.dtype.startswith("float"):
        values = _floats(shape)
    else:
        values = _ids(shape, 2 if spec.dtype == "bool" else spec.rows_of_table)
    for column in spec.id_columns:
        if column.column is not None:
            values[..., column.column] = _ids(shape[:-1], column.rows_of_table)
    return values.astype(bool) if spec.dtype == "bool" else values


def _floats(shape: list[int]) -> np.ndarray:
    from optimum.utils.input_generators import DummyInputGenerator  # noqa: PLC0415 - only when requests are generated

    return np.array(DummyInputGenerator.random_float_tensor(shape, framework="np", dtype="fp32"))


def _ids(shape: list[int], rows: int | None) -> np.ndarray:
    from optimum.utils.input_generators import DummyInputGenerator  # noqa: PLC0415 - only when requests are generated

    rows = rows or _UNKNOWN_TABLE_ROWS
    return np.array(DummyInputGenerator.random_int_tensor(shape, max_value=rows, framework="np", dtype="int64"))


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """optimum draws from numpy's global generator: seed it inside the block, give it back as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
