"""Between what a client sends and what a model takes: both layouts are accepted for every model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..core.errors import InputError, UnknownName
from ..core.ids import wrong_id
from ..core.signature import InputSpec, Signature


def count_candidates(tensors: Mapping[str, np.ndarray], signature: Signature) -> int:
    """Number of items to score: the leading dimension of the candidate inputs (of all inputs, when none is a candidate input)."""
    specs = [s for s in signature.inputs if s.role == "candidate"] or list(signature.inputs)
    counts = {s.name: tensors[s.name].shape[0] for s in specs if s.name in tensors and tensors[s.name].ndim}
    if not counts:
        raise InputError.mismatch(
            "request", expected="the inputs " + ", ".join(s.name for s in signature.inputs), found=", ".join(tensors) or "none"
        )
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name}: {count}" for name, count in counts.items())
        fix = "when some of them belong to the request, export the model with --requests or --request-inputs"
        raise InputError.mismatch("request", expected="as many candidates in every candidate input", found=found, fix=fix)
    count: int = next(iter(counts.values()))
    if count == 0:
        raise InputError.mismatch("request", expected="at least one candidate", found="none")
    return count


def feeds_for(tensors: Mapping[str, np.ndarray], signature: Signature) -> dict[str, np.ndarray]:
    """Input tensors in the signature's own layout, checked.

    A request input may arrive with leading dimension 1 or repeated for every candidate, whatever the model's layout is: layout
    `rows` gets it repeated, layout `request` gets one row (the repeated rows must then be equal). Inputs the model does not take are
    left out: another arm may need them. Raises InputError naming the input.
    """
    count = count_candidates(tensors, signature)
    feeds: dict[str, np.ndarray] = {}
    for spec in signature.inputs:
        if spec.name in tensors:
            feeds[spec.name] = _laid_out(tensors[spec.name], spec, count, repeat=signature.layout == "rows")
    signature.check(feeds, where="request")
    for spec in signature.inputs:
        _check_indices(feeds[spec.name], spec)
    return feeds


def _check_indices(array: np.ndarray, spec: InputSpec) -> None:
    """Refuse an index outside its embedding table here: the runtimes fail on it deep inside, or read the table from its end."""
    wrong = wrong_id(spec, array)
    if wrong is not None:
        raise InputError.mismatch(f"request: input '{spec.name}{wrong.place}'", expected=wrong.expected, found=wrong.found)


def _laid_out(array: np.ndarray, spec: InputSpec, count: int, *, repeat: bool) -> np.ndarray:
    if spec.role == "candidate" or not array.ndim:
        return array
    at = f"request: input '{spec.name}'"
    if array.shape[0] not in (1, count):
        raise InputError.mismatch(at, expected=f"1 row, or one per candidate ({count})", found=f"{array.shape[0]}")
    if repeat:
        return np.repeat(array, count, axis=0) if array.shape[0] != count else array
    if array.shape[0] > 1 and not (array == array[:1]).all():
        raise InputError.mismatch(at, expected="one value for the whole request", found="rows that differ", fix="send one row")
    return np.ascontiguousarray(array[:1])


def merge_inputs(signatures: Mapping[str, Signature]) -> dict[str, InputSpec]:
    """Every input that some arm takes, by name: what a client has to send.

    All arms' inputs are asked of every request, so that a bad request fails alike in every arm. Raises InputError when two arms take an
    input of one name but another dtype, rank or role.
    """
    merged: dict[str, InputSpec] = {}
    owner: dict[str, str] = {}
    for arm, signature in signatures.items():
        for spec in signature.inputs:
            known = merged.setdefault(spec.name, spec)
            first = owner.setdefault(spec.name, arm)
            if (known.dtype, len(known.shape), known.role) != (spec.dtype, len(spec.shape), spec.role):
                raise InputError.mismatch(
                    f"arm '{arm}': input '{spec.name}'",
                    expected=f"{known.dtype} of rank {len(known.shape)}, role {known.role}, as in arm '{first}'",
                    found=f"{spec.dtype} of rank {len(spec.shape)}, role {spec.role}",
                    fix="export both models with the same inputs, or rename one",
                )
    return merged


def refuse_unknown(tensors: Mapping[str, np.ndarray], known: Mapping[str, InputSpec]) -> None:
    """Raise UnknownName for an input that no arm takes."""
    for name in tensors:
        if name not in known:
            raise UnknownName("request", "input", name, known)
