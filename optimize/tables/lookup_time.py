"""How long lookups take before and after their tables were stored in another way."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from ...runtime.session import SessionSettings
from .formats import Stored
from .lookups import LookedUp
from .read_rows import store

IDS = 256
_ROUNDS = 200


def lookup_times(changed: Sequence[tuple[np.ndarray, Stored]], *, ids: int = IDS, seed: int = 0) -> tuple[float, float]:
    """Median microseconds of one lookup of `ids` random ids in every table, before and after; both run in turns, one thread."""
    sessions = [_session(changed, ids, stored=stored) for stored in (False, True)]
    random = np.random.default_rng(seed)
    samples: tuple[list[int], list[int]] = ([], [])
    for _ in range(_ROUNDS):
        feeds = {f"ids{number}": random.integers(0, len(table), ids) for number, (table, _) in enumerate(changed)}
        for session, found in zip(sessions, samples, strict=True):
            start = time.perf_counter_ns()
            session.run(None, feeds)
            found.append(time.perf_counter_ns() - start)
    before, after = (float(np.median(found)) / 1000 for found in samples)
    return before, after


def _session(changed: Sequence[tuple[np.ndarray, Stored]], count: int, *, stored: bool) -> ort.InferenceSession:
    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - the same options as a session

    inputs, nodes, tables = list[ir.Value](), list[ir.Node](), list[ir.Value]()
    for number, (table, _) in enumerate(changed):
        name = f"table{number}"
        value = ir.Value(
            name=name, const_value=ir.tensor(table, name=name), type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(table.shape)
        )
        ids = ir.Value(name=f"ids{number}", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([count]))
        gather = ir.node("Gather", [value, ids], attributes={"axis": 0})
        gather.outputs[0].name = f"rows{number}"
        gather.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        inputs.append(ids)
        nodes.append(gather)
        tables.append(value)
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=tables, opset_imports={"": 20}, name="lookups")
    model = ir.Model(graph, ir_version=10)
    if stored:
        for value, gather, (table, kept) in zip(tables, nodes, changed, strict=True):
            store(model, LookedUp(value=value, rows=len(table), width=table.shape[1], gathers=[gather]), kept)
    return ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), session_options(SessionSettings()), providers=["CPUExecutionProvider"]
    )
