"""A model written as ONNX text with requests to calibrate on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from liftgate.core.requests import Requests
from liftgate.core.signature import Layout, Signature
from liftgate.optimize.context import StepContext
from liftgate.optimize.samples import from_requests

from .onnx_text import graph, signature

CANDIDATES = 4


def numbers(requests: int, *sizes: int, seed: int = 0, low: float = 0.0) -> np.ndarray:
    """Random numbers in [low, low + 1): float32 `[requests, *sizes]`."""
    return (low + np.random.default_rng(seed).random((requests, *sizes))).astype(np.float32)


def calibrated(
    text: str,
    folder: Path,
    columns: Mapping[str, np.ndarray],
    *,
    weights: Mapping[str, np.ndarray] | None = None,
    request: str = "",
    layout: Layout = "rows",
) -> StepContext:
    """The graph `text` (as in onnx_text) with these weights, and a request per leading entry of `columns`.

    A column is `[requests, candidates, ...]`, of inputs named in `request` `[requests, ...]`.
    """
    model = graph(text)
    spec = signature(model, request=request, layout=layout)
    for name, array in (weights or {}).items():
        model.graph.initializers[name].const_value = ir.tensor(array.astype(np.float32), name=name)
    return _context(ir.to_proto(model), spec, folder, columns)


def _context(proto: onnx.ModelProto, spec: Signature, folder: Path, columns: Mapping[str, np.ndarray]) -> StepContext:
    onnx.save(proto, folder / "in.onnx")
    count = len(next(iter(columns.values())))
    ids = [str(number) for number in range(count)]
    data = {name: [entry.tolist() for entry in array] for name, array in columns.items()}
    requests = Requests.of({"request_id": ids, "user_id": ids, **data})
    return StepContext(
        where="model",
        source=folder / "in.onnx",
        target=folder / "out.onnx",
        signature=spec,
        samples=from_requests(requests, spec),
        calibrated=True,
        requests=requests,
    )


def scores(context: StepContext, *, after: bool) -> np.ndarray:
    """The first output on all requests, flattened."""
    session = ort.InferenceSession(context.target if after else context.source, providers=["CPUExecutionProvider"])
    return np.concatenate([np.asarray(session.run(None, feeds)[0], dtype=np.float64).reshape(-1) for feeds in context.feeds(10_000)])


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every initializer, by the name that its weight had before."""
    return {tensor.name.split("_kept")[0]: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
