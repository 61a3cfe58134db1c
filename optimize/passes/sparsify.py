"""Unstructured sparsity: single weights become zero; ONNX Runtime multiplies by them all the same."""

from __future__ import annotations

import numpy as np

from ...core.artifact import StepRecord
from ...core.errors import RefusedStep, UnknownName
from ...recipes.steps import Sparsify
from ..context import StepContext
from ..convert.onnx_graph import save
from .linears import drop_unused, has_weight, matrix_of, name_of, prepared, set_matrix
from .observe import learn

WARNING = "ONNX Runtime gains nothing from it: it has no kernels for scattered zeros, and the file is as large as before"


def sparsify(step: Sparsify, context: StepContext) -> StepRecord:
    """Set the share `share` of the weights behind each output to zero; embedding tables stay as they are.

    With calibration requests those go first whose magnitude times the root mean square of their input is least (Wanda: Sun et al. 2023,
    arXiv:2306.11695), without them those of least magnitude. Raises RefusedStep when the model has no linear layer, or every one is
    excluded.
    """
    where = f"sparsify {context.where}"
    model, original = prepared(context.source, where), prepared(context.source, where)
    every = [node for node in model.graph if has_weight(node)]
    for name in step.exclude:
        if name not in {name_of(node) for node in every}:
            raise UnknownName(where, "layer", name, [name_of(node) for node in every])
    linear = [node for node in every if name_of(node) not in step.exclude]
    if not linear:
        raise RefusedStep(where, "no MatMul or Gemm with a constant weight is left", fix="there is nothing to set to zero")
    names = {node: node.outputs[0].name or "" for node in linear}
    learned = learn(original, original, list(names.values()), context) if context.calibrated else {}
    zeros = weights = 0
    for node in linear:
        matrix = matrix_of(node)
        importance = np.abs(matrix)
        if learned:
            both = [one.both for one in learned[names[node]]]
            size = np.sqrt(np.stack([np.diag(one.gram)[:-1] / one.total for one in both]))
            importance = importance * (size[:, :, None] if matrix.ndim == 3 else size[0][:, None])
        count = int(step.share * matrix.shape[-2])
        order = np.argsort(importance, axis=-2, kind="stable")
        np.put_along_axis(matrix, np.take(order, np.arange(count), axis=-2), 0.0, axis=-2)
        set_matrix(model, node, matrix)
        zeros, weights = zeros + int((matrix == 0).sum()), weights + matrix.size
    drop_unused(model)
    save(model, context.target)
    by = "magnitude times input on real requests" if learned else "magnitude"
    return StepRecord(
        kind="sparsify",
        settings={"share": step.share, "exclude": ",".join(step.exclude)},
        summary=f"{zeros:,} of {weights:,} weights of {len(linear)} layers are zero, chosen by {by}. {WARNING}.",
        numbers={"weights_zero": float(zeros), "weights_total": float(weights)},
    )
