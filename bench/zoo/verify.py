"""The written file against eager PyTorch, with nothing of liftgate between them: onnxruntime, fresh rows, every output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch.utils._pytree import tree_leaves, tree_map

from .case import Args, Case
from .draw import HISTORY, Draw
from .eager import first_line, outputs
from .outcome import Compared

ROWS = (1, 2, 7, 64)
SHORTER = (6, 3)
DRAWS = 3


class Disagreement(Exception):
    """The written graph does not say what PyTorch says; the message says where."""


def verify(path: Path, case: Case) -> tuple[Compared, ...]:
    """Compare the graph at `path` with the case's own module, built anew.

    An element agrees when |onnx - torch| <= 1e-4 + 1e-3 |torch|; where an output spreads by less than 0.01 (probabilities over all items)
    the first term is 1 % of that spread. Raises Disagreement naming rows, output and difference.
    """
    module = case.module()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    spreads = [float(array.astype(np.float64).std()) for array in outputs(module, case.inputs(Draw(rows=64, seed=999)))]
    found = [_compare(session, module, case, Draw(rows=rows, seed=1000 * rows + seed), spreads) for rows in ROWS for seed in range(DRAWS)]
    if _history_varies(session, case):
        for history in SHORTER:
            drawn = _compare_if_pytorch_runs(session, module, case, Draw(rows=7, seed=history, history=history), spreads)
            found.extend([drawn] if drawn else [])
    return tuple(found)


def _history_varies(session: ort.InferenceSession, case: Case) -> bool:
    """Whether a dimension besides the rows has no fixed size in the graph, and is as long as a history in the example."""
    leaves = tree_leaves(case.inputs(Draw(rows=2, seed=0)))
    for spec, leaf in zip(session.get_inputs(), leaves, strict=False):
        for named, size in list(zip(spec.shape, leaf.shape, strict=False))[1:]:
            if not isinstance(named, int) and size == HISTORY:
                return True
    return False


def _compare_if_pytorch_runs(
    session: ort.InferenceSession, module: torch.nn.Module, case: Case, draw: Draw, spreads: list[float]
) -> Compared | None:
    args = case.inputs(draw)
    try:
        expected = outputs(module, args)
    except Exception:  # a model that takes one length only has nothing to compare with
        return None
    return _judge(_run(session, args), expected, spreads, draw, "")


def _compare(session: ort.InferenceSession, module: torch.nn.Module, case: Case, draw: Draw, spreads: list[float]) -> Compared:
    args = case.inputs(draw)
    try:
        expected, against = outputs(module, args), ""
    except Exception:  # some models do not run on a single row, which is no reason for the graph not to
        if draw.rows > 1:
            raise
        two = case.inputs(Draw(rows=2, seed=draw.seed))
        expected = [array[:1] if array.ndim else array for array in outputs(module, two)]
        args, against = tree_map(lambda leaf: leaf[:1], two), "1 row against the first of two, as PyTorch fails on one"
    return _judge(_run(session, args), expected, spreads, draw, against)


def _run(session: ort.InferenceSession, args: Args) -> list[np.ndarray]:
    """Inputs go by order: those of the graph are the leaves of `args`."""
    leaves = [leaf.numpy() for leaf in tree_leaves(args)]
    names = [spec.name for spec in session.get_inputs()]
    if len(names) != len(leaves):
        raise Disagreement(f"forward takes {len(leaves)} tensors, the graph {len(names)}: {', '.join(names)}")
    try:
        found: list[np.ndarray] = session.run(None, dict(zip(names, leaves, strict=True)))
    except Exception as error:  # onnxruntime has its own types
        raise Disagreement(f"onnxruntime fails at {len(leaves[0])} rows: {first_line(error)}") from error
    return found


def _judge(found: list[np.ndarray], expected: list[np.ndarray], spreads: list[float], draw: Draw, against: str) -> Compared:
    where = f"at {draw.rows} rows, history {draw.width}"
    if len(found) != len(expected):
        raise Disagreement(f"{where}: PyTorch gives {len(expected)} outputs, the graph {len(found)}")
    worst = 0.0
    for index, (graph, torch_says) in enumerate(zip(found, expected, strict=True)):
        reference, other = torch_says.astype(np.float64).reshape(-1), graph.astype(np.float64).reshape(-1)
        if reference.shape != other.shape:
            raise Disagreement(f"{where}: output {index} has shape {list(graph.shape)}, PyTorch gives {list(torch_says.shape)}")
        difference = np.abs(other - reference)
        spread = spreads[index]
        floor = min(1e-4, 0.01 * spread) if spread > 0 else 1e-4
        if not (difference <= floor + 1e-3 * np.abs(reference)).all():
            raise Disagreement(f"{where}: output {index} differs by {difference.max():.3g} (PyTorch spreads by {spread:.3g})")
        worst = max(worst, float(difference.max(initial=0.0)))
    return Compared(rows=draw.rows, history=draw.width, difference=worst, against=against)


def nodes_of(path: Path) -> int:
    """Nodes of the graph, those in the bodies of loops and branches included."""

    def count(graph: onnx.GraphProto) -> int:
        bodies = (attribute.g for node in graph.node for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)
        return len(graph.node) + sum(count(body) for body in bodies)

    return count(onnx.load(path, load_external_data=False).graph)
