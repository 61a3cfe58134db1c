"""What ONNX Runtime makes of a quantized model when it loads it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

from ...runtime.onnx_session import session_options
from ...runtime.session import SessionSettings

_INT8 = frozenset({"QGemm", "QLinearMatMul", "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul"})


def int8_kernels(path: Path) -> int:
    """How many nodes of the model at `path` compute products in int8 once ONNX Runtime has loaded it on this machine.

    Q and DQ around a node are only a wish: where ONNX Runtime knows no kernel for the pattern, it computes in float.
    """
    with tempfile.TemporaryDirectory(prefix="liftgate-") as folder:
        options = session_options(SessionSettings())
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(f"{folder}/optimized.onnx", load_external_data=False).graph
    return sum(node.op_type in _INT8 for node in graph.node)
