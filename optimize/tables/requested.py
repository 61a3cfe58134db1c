"""Which rows of its tables a model asks for, request by request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from ...runtime.session import SessionSettings
from ..fuse.edit import drop_unused
from .lookups import LookedUp


def requested_rows(model: ir.Model, tables: list[LookedUp], feeds: Iterable[Mapping[str, np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """For every request, the rows that each table is asked for: int64 [lookups], from 0, once per lookup.

    Runs only the part of `model` between its inputs and the lookups.
    """
    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - the same options as a session

    names = [[node.inputs[1].name or "" for node in table.gathers if node.inputs[1] is not None] for table in tables]
    every = list(dict.fromkeys(name for group in names for name in group))
    part, given = _part(model, every)
    session = ort.InferenceSession(part, session_options(SessionSettings()), providers=["CPUExecutionProvider"]) if part else None
    takes = {one.name for one in session.get_inputs()} if session is not None else set[str]()
    computed = [name for name in every if name not in given]
    for feed in feeds:
        found = {name: np.asarray(feed[name]) for name in every if name in given}
        if session is not None:
            values = session.run(computed, {name: array for name, array in feed.items() if name in takes})
            found.update((name, np.asarray(value)) for name, value in zip(computed, values, strict=True))
        yield [
            np.concatenate([found[name].reshape(-1).astype(np.int64) for name in group]) % table.rows
            for group, table in zip(names, tables, strict=True)
        ]


def _part(model: ir.Model, names: list[str]) -> tuple[bytes, set[str]]:
    """A model that gives these values, as bytes, and those among them that are inputs of `model`; no bytes where all are."""
    copy = ir.from_proto(ir.to_proto(model))
    values = {value.name or "": value for node in copy.graph for value in node.outputs}
    given = {value.name or "" for value in copy.graph.inputs} & set(names)
    wanted = [values[name] for name in names if name not in given]
    if not wanted:
        return b"", given
    copy.graph.outputs.clear()
    copy.graph.outputs.extend(wanted)
    drop_unused(copy)
    for value in wanted:
        value.shape = None
    used = {value for node in copy.graph.all_nodes() for value in node.inputs}
    for value in [value for value in copy.graph.inputs if value not in used]:
        copy.graph.inputs.remove(value)
    for value in wanted:
        value.type = value.type or ir.TensorType(ir.DataType.INT64)
    return ir.to_proto(copy).SerializeToString(), given
