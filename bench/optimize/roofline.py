"""What this machine can do at most on one core, and how much of that a graph would need."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.artifact import read_artifact
from ...optimize.cost.cost import cost_of
from ...optimize.cost.sizes import sizes_of
from ...runtime.onnx_file import load
from .process import one_thread

_SIDE = 768
_CACHE_BYTES = 1 << 20
_MEMORY_BYTES = 1 << 28
_REPEATS = 9


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """Best of several tries on one core: float32 and int8 matrix products (ONNX Runtime), copying within the cache and in memory."""

    float32_gflops: float
    int8_gops: float
    cache_gb_s: float
    memory_gb_s: float

    def best(self, other: Peaks) -> Peaks:
        """The higher of each."""
        pairs = {name: max(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__}
        return Peaks(**pairs)


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a graph computes and moves for one request."""

    flops: int
    bytes: int
    int8: bool

    def least_ms(self, peaks: Peaks) -> float:
        """The roofline: arithmetic at its peak or traffic at the cache's, whichever takes longer (Williams et al. 2009)."""
        arithmetic = max(peaks.float32_gflops, peaks.int8_gops) if self.int8 else peaks.float32_gflops
        return 1e3 * max(self.flops / (arithmetic * 1e9), self.bytes / (peaks.cache_gb_s * 1e9))


def need_of(artifact: Path, candidates: int) -> Need:
    """FLOPs and bytes of an artifact's graph for a request of this many candidates."""
    signature = read_artifact(artifact).manifest.signature
    model = load(artifact / "model.onnx")
    cost = cost_of(model, signature, sizes_of(signature, candidates=candidates))
    int8 = any(
        value.const_value is not None and value.const_value.dtype in {ir.DataType.INT8, ir.DataType.UINT8} and value.const_value.size > 64
        for value in model.graph.initializers.values()
    )
    return Need(flops=cost.flops.total, bytes=cost.bytes.total, int8=int8)


def peaks(core: int, cache: Path) -> Peaks:
    """Measure in a process of its own on `core`."""
    command = [sys.executable, "-m", "liftgate.bench.optimize.roofline", str(core)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=one_thread(cache)).stdout
    return msgspec.json.decode(said, type=Peaks)


def _measure() -> Peaks:
    operations = 2.0 * _SIDE**3
    return Peaks(
        float32_gflops=operations / _fastest_s(_product("MatMul", np.float32)) / 1e9,
        int8_gops=operations / _fastest_s(_product("MatMulInteger", np.uint8)) / 1e9,
        cache_gb_s=_copied(_CACHE_BYTES, 200) / 1e9,
        memory_gb_s=_copied(_MEMORY_BYTES, 1) / 1e9,
    )


def _product(operator: str, dtype: type[np.generic]) -> Callable[[], object]:
    """A square product with a constant right-hand side, as models have them."""
    import onnxruntime as ort  # noqa: PLC0415 - takes a second

    signed = np.random.default_rng(0).integers(-64, 64, (_SIDE, _SIDE))
    left, weight = (np.abs(signed) if dtype == np.uint8 else signed).astype(dtype), signed.astype(np.int8 if dtype == np.uint8 else dtype)
    x = ir.val("x", ir.DataType.from_numpy(left.dtype), [_SIDE, _SIDE])
    w = ir.val("w", const_value=ir.tensor(weight, name="w"))
    node = ir.Node("", operator, [x, w], num_outputs=1)
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.INT32 if dtype == np.uint8 else ir.DataType.FLOAT)
    graph = ir.Graph([x], [node.outputs[0]], nodes=[node], initializers=[w], opset_imports={"": 21}, name="peak")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    written = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = ort.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


def _copied(size: int, times: int) -> float:
    """Bytes read and written per second by copies of half of `size` into the other half."""
    source, target = np.ones(size // 2, dtype=np.uint8), np.zeros(size // 2, dtype=np.uint8)

    def copy() -> None:
        for _ in range(times):
            np.copyto(target, source)

    return size * times / _fastest_s(copy)


def _fastest_s(call: Callable[[], object]) -> float:
    call()
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter_ns()
        call()
        best = min(best, (time.perf_counter_ns() - start) / 1e9)
    return best


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    sys.stdout.write(msgspec.json.encode(_measure()).decode())
