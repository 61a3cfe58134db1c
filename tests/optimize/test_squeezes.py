from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from liftgate.optimize.rewrites.squeezes import mend_squeezes


def model(squeeze: str, shape: str) -> ir.Model:
    return ir.from_onnx_text(
        f"""
        <ir_version: 10, opset_import: ["" : 20]>
        agraph (float[{shape}] x) => (float[unknown] y) <int64[1] zero = {{0}}, int64[2] both = {{0, 2}}> {{
            y = {squeeze}
        }}
        """
    )


def run(changed: ir.Model, x: np.ndarray) -> list[int]:
    for output in changed.graph.outputs:
        output.shape = None
    session = ort.InferenceSession(ir.to_proto(changed).SerializeToString(), providers=["CPUExecutionProvider"])
    return list(np.shape(session.run(None, {"x": x})[0]))


@pytest.mark.parametrize(
    ("squeeze", "shape", "rows", "expected"),
    [
        ("Squeeze(x)", "rows, 3, 1", 2, [2, 3]),
        ("Squeeze(x)", "rows, 3, 1", 1, [1, 3]),  # as it stood, the row went too
        ("Squeeze(x)", "rows, 3, 2", 1, [1, 3, 2]),
        ("Squeeze(x, zero)", "rows, 3, 1", 2, [2, 3, 1]),  # as it stood, ONNX Runtime failed
        ("Squeeze(x, both)", "rows, 3, 1", 2, [2, 3]),
    ],
)
def test_a_squeeze_drops_what_is_one_for_any_number_of_rows(squeeze: str, shape: str, rows: int, expected: list[int]) -> None:
    changed = model(squeeze, shape)
    assert mend_squeezes(changed) == 1
    assert run(changed, np.zeros((rows, *(int(size) for size in shape.split(", ")[1:])), np.float32)) == expected


def test_a_squeeze_that_says_what_it_means_is_left_alone() -> None:
    unchanged = model("Squeeze(x, zero)", "1, 3")
    assert mend_squeezes(unchanged) == 0
    assert run(unchanged, np.zeros((1, 3), np.float32)) == [3]
