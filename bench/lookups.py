"""What lookups cost: tables in fewer bits, products looked up instead of computed, many tables packed into one.

python -m liftgate.bench.lookups [formats] [precompute] [packed]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto
from onnx.helper import make_empty_tensor_value_info, make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from ..core.machine import this_machine
from ..optimize.tables.formats import Format, row_errors, stored
from ..optimize.tables.lookup_time import lookup_times
from ..runtime.onnx_session import session_options
from ..runtime.session import SessionSettings

ROUNDS = 300
# Rows and width of a table, units of the layer behind it.
_PRODUCTS = ((30_000, 16, 512), (30_000, 32, 512), (30_000, 64, 512), (30_000, 64, 128), (2_000, 32, 512), (2_000, 64, 512))
SEED = 0


def formats() -> list[str]:
    """Lookups in tables of every format; rows are normal, their lengths log-normal."""
    random = np.random.default_rng(SEED)
    lines = ["| rows x width | ids | format | MiB | mean, worst row error | float32 us | us |", "|---|---|---|---|---|---|---|"]
    for rows, width in ((30_000, 64), (1_000_000, 32)):
        table = random.normal(size=(rows, width)).astype(np.float32) * random.lognormal(size=(rows, 1)).astype(np.float32)
        for kind in get_args(Format):
            kept = stored(table, kind)
            if kept is None:
                raise AssertionError("normal numbers fit every format")
            errors = row_errors(table, kept)
            for ids in (32, 256):
                before, after = lookup_times([(table, kept)], ids=ids)
                sizes, error = f"{table.nbytes / 2**20:.1f} -> {kept.nbytes / 2**20:.1f}", f"{errors.mean():.1g}, {errors.max():.1g}"
                lines.append(f"| {rows} x {width} | {ids} | {kind} | {sizes} | {error} | {before:.0f} | {after:.0f} |")
    return lines


def precompute() -> list[str]:
    """`Gemm(Gather(table), W, x)` against `Gather(table @ W) + x`."""
    random = np.random.default_rng(SEED)
    lines = ["| table | units | ids | product us | looked up us | gain |", "|---|---|---|---|---|---|"]
    for rows, width, units in (
        (30_000, 16, 512),
        (30_000, 32, 512),
        (30_000, 64, 512),
        (30_000, 64, 128),
        (2_000, 32, 512),
        (2_000, 64, 512),
    ):
        table, weight = (random.normal(size=shape).astype(np.float32) for shape in ((rows, width), (width, units)))
        nodes = [make_node("Gather", ["t", "i"], ["g"]), make_node("Gemm", ["g", "w", "x"], ["y"])]
        computed = _session(nodes, {"t": table, "w": weight}, {"i": (TensorProto.INT64, ["r"]), "x": (TensorProto.FLOAT, ["r", units])})
        nodes = [make_node("Gather", ["t", "i"], ["g"]), make_node("Add", ["g", "x"], ["y"])]
        found = _session(nodes, {"t": table @ weight}, {"i": (TensorProto.INT64, ["r"]), "x": (TensorProto.FLOAT, ["r", units])})
        for ids in (32, 256):
            feeds: list[dict[str, np.ndarray]] = [
                {"i": random.integers(0, rows, ids), "x": random.normal(size=(ids, units)).astype(np.float32)} for _ in range(50)
            ]
            before, after = _race([computed, found], feeds)
            lines.append(f"| {rows} x {width} | {units} | {ids} | {before:.0f} | {after:.0f} | {before / after:.2f}x |")
    return lines


def packed() -> list[str]:
    """Tables of one width looked up one by one and put side by side, against one table, loud (an id outside its own table fails) or not."""
    random = np.random.default_rng(SEED)
    lines = ["| tables | ids each | one by one us | packed, loud us | packed, silent us |", "|---|---|---|---|---|"]
    for count in (3, 6, 13, 26):
        sizes = random.integers(50, 5000, count)
        tables = [random.normal(size=(size, 32)).astype(np.float32) for size in sizes]
        inputs = {"X": (TensorProto.FLOAT, ["r", count])}
        cast = make_node("Cast", ["X"], ["I"], to=TensorProto.INT64)
        split = make_node("Split", ["I"], [f"i{k}" for k in range(count)], axis=1, num_outputs=count)
        gathers = [make_node("Gather", [f"t{k}", f"i{k}"], [f"g{k}"]) for k in range(count)]
        side = make_node("Concat", [f"g{k}" for k in range(count)], ["y"], axis=1)
        alone = _session([cast, split, *gathers, side], {f"t{k}": table for k, table in enumerate(tables)}, inputs)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        whole: dict[str, np.ndarray] = {"t": np.concatenate(tables), "starts": starts}
        lookup = [make_node("Add", ["I", "o"], ["K"]), make_node("Gather", ["t", "K"], ["y"])]
        guard = [make_node("Less", ["I", "sizes"], ["below"]), make_node("GreaterOrEqual", ["I", "zero"], ["above"])]
        guard += [make_node("And", ["below", "above"], ["ok"]), make_node("Where", ["ok", "starts", "far"], ["o"])]
        bounds: dict[str, np.ndarray] = {"sizes": sizes.astype(np.int64), "zero": np.zeros(1, np.int64), "far": np.array([2**40])}
        loud = _session([cast, *guard, *lookup], {**whole, **bounds}, inputs)
        silent = _session([cast, make_node("Identity", ["starts"], ["o"]), *lookup], whole, inputs)
        for ids in (32, 256):
            feeds = [{"X": np.stack([random.integers(0, size, ids) for size in sizes], axis=1).astype(np.float32)} for _ in range(50)]
            times = _race([alone, loud, silent], feeds)
            lines.append(f"| {count} | {ids} | {' | '.join(f'{found:.0f}' for found in times)} |")
    return lines


def _session(
    nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray], inputs: Mapping[str, tuple[int, list[str | int]]]
) -> ort.InferenceSession:
    given = [make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = make_graph(list(nodes), "lookups", given, [make_empty_tensor_value_info("y")], tensors)
    model = make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), session_options(SessionSettings()), providers=["CPUExecutionProvider"])


def _race(sessions: Sequence[ort.InferenceSession], feeds: Sequence[Mapping[str, np.ndarray]]) -> list[float]:
    """Median microseconds of each, run in turns on the same feeds."""
    samples: list[list[int]] = [[] for _ in sessions]
    for number in range(ROUNDS):
        for session, found in zip(sessions, samples, strict=True):
            start = time.perf_counter_ns()
            session.run(None, dict(feeds[number % len(feeds)]))
            found.append(time.perf_counter_ns() - start)
    return [float(np.median(found)) / 1000 for found in samples]


PARTS = {"formats": formats, "precompute": precompute, "packed": packed}


def main(wanted: list[str]) -> None:
    """Print the parts in `wanted`, or all, as Markdown."""
    machine = this_machine()
    print(f"{machine.cpu}, {machine.cores} cores; ONNX Runtime {ort.__version__}, one thread; medians of {ROUNDS} runs in turns")
    for name in wanted or list(PARTS):
        print(f"\n## {name}\n")
        print("\n".join(PARTS[name]()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
