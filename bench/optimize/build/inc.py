"""neural-compressor alone: PT2E static int8 with its defaults, exported by torch.onnx."""

# The zoo's packages are not in the environment that types are checked in.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from onnxscript import optimizer

from ....core.artifact import read_artifact
from ....core.signature import Signature
from ..variants import Job
from . import calibration
from .module import module_of


def inc(job: Job) -> tuple[Path, str]:
    """Calibrate, convert and export; constant weights are folded to int8, so that ONNX Runtime can fuse them."""
    from neural_compressor.torch.export import export  # noqa: PLC0415 - takes seconds
    from neural_compressor.torch.quantization import StaticQuantConfig, convert, prepare  # noqa: PLC0415

    signature = read_artifact(job.base).manifest.signature
    asked = [_arguments(feeds, signature) for feeds in calibration.feeds(job)]
    rows = torch.export.Dim("rows", min=2)
    dynamic = tuple({0: rows} for _ in signature.inputs)
    observed = prepare(export(module_of(job), asked[0], dynamic_shapes=dynamic), StaticQuantConfig())
    with torch.no_grad():
        for arguments in asked:
            observed(*arguments)
    program = torch.export.export(convert(observed), asked[0], dynamic_shapes=dynamic)
    written = torch.onnx.export(program, (), dynamo=True, input_names=[spec.name for spec in signature.inputs], output_names=["score"])
    if written is None:
        raise RuntimeError("torch.onnx wrote nothing")
    optimizer.fold_constants(
        written.model,
        onnx_shape_inference=False,
        input_size_limit=2**31,
        output_size_limit=2**31,
        should_fold=lambda node: True if node.op_type in {"QuantizeLinear", "Clip"} else None,
    )
    target = job.folder / "model.onnx"
    written.save(target)
    return target, f"PT2E StaticQuantConfig, its defaults, {calibration.REQUESTS} requests; torch.onnx"


def _arguments(feeds: dict[str, np.ndarray], signature: Signature) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(feeds[spec.name]) for spec in signature.inputs)
