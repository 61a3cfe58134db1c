"""What flows through a model on real rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort

from ...runtime.session import SessionSettings
from ..context import StepContext


def mean_magnitudes(context: StepContext, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Mean |value| of these tensors over all rows of the context's samples: float64, one entry per last-axis element."""
    from ...runtime.onnx_session import session_options  # noqa: PLC0415 - the same options as a session

    model = onnx.load(context.source)
    already = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in already)
    session = ort.InferenceSession(model.SerializeToString(), session_options(SessionSettings()), providers=["CPUExecutionProvider"])
    wanted = list(dict.fromkeys(names))
    values = session.run(wanted, context.samples.rows(context.samples.size))
    return {
        name: np.abs(np.asarray(value, dtype=np.float64)).reshape(-1, value.shape[-1]).mean(axis=0)
        for name, value in zip(wanted, values, strict=True)
    }
