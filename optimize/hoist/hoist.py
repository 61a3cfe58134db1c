"""Computing once per request what is the same for all its candidates: from layout `rows` to layout `request`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass
from onnxscript import optimizer

from ...core.signature import Signature
from ..cost.dependence import inlined
from ..rewrites.tidy import tidy
from ..samples import Samples, from_signature
from . import batched, concats, expands, flattening, products, selections, slices, views
from .facts import Facts
from .label_arithmetic import ELEMENTWISE
from .labels import LABELLED
from .rewriting import Rule, rewrite

RULES: dict[str, Iterable[Rule]] = {
    **dict.fromkeys(LABELLED, (expands.through_operation, concats.through_operation)),
    **dict.fromkeys(ELEMENTWISE, (expands.through_operation, flattening.elementwise_of_flat, concats.through_operation)),
    "MatMul": (expands.through_operation, products.split_product, batched.shared_right, batched.shared_left),
    "Gemm": (expands.through_operation, products.split_product, flattening.linear_of_flat),
    "ReduceSum": (expands.through_operation, batched.sum_of_product, concats.sum_over, concats.through_operation),
    "Gather": (
        *(selections.gather_along_copies, expands.through_operation, selections.ids_through_float, views.lookup_of_column),
        *(slices.gather_of_one, slices.slice_up),
    ),
    "Slice": (expands.through_operation, concats.slice_of, slices.slice_up, concats.through_operation),
    "Reshape": (views.reshape_of_view, expands.through_reshape, flattening.unflatten, views.flattened_stack, concats.through_reshape),
    "Squeeze": (views.squeeze_of_unsqueeze, expands.through_operation, concats.through_operation),
    "Shape": (expands.through_shape,),
    "Concat": (expands.through_operation, concats.of_concat, views.concat_of_lifted, concats.through_operation),
    "Identity": (selections.identity,),
    "Split": (selections.split_constant, expands.through_operation, concats.through_operation),
    "Transpose": (selections.transpose_constant, expands.through_operation, concats.through_operation),
    "ScatterElements": (expands.through_operation, selections.scatter_over_all),
    "GatherND": (expands.through_operation, selections.gather_from_copies, slices.gather_of_row),
    "Expand": (expands.of_expand,),
    "Tile": (expands.of_tile,),
    "ConstantOfShape": (expands.of_constant_of_shape,),
}


class Hoisted(msgspec.Struct, frozen=True):
    """A model in layout `request`, its signature, and how often each rule was applied."""

    model: ir.Model
    signature: Signature
    applied: dict[str, int]


def hoist(model: ir.Model, signature: Signature, samples: Samples | None = None) -> Hoisted:
    """`model`, which is not changed, with request inputs of leading dimension 1; `samples`, in layout `rows`, show lengths and ids."""
    work = inlined(model).clone()
    fold(work)
    once = msgspec.structs.replace(signature, layout="request")
    _repeat_inputs(work, signature)
    applied = rewrite(work, Facts(once, samples or from_signature(signature)), RULES)
    work.graph.sort()
    tidy(work)
    return Hoisted(work, once, applied)


def _repeat_inputs(model: ir.Model, signature: Signature) -> None:
    """Request inputs get leading dimension 1 and are repeated for every candidate right away, which changes nothing else."""
    graph = model.graph
    by_name = {value.name: value for value in graph.inputs}
    candidate = next(by_name[spec.name] for spec in signature.inputs if spec.role == "candidate")
    rows = ir.Node("", "Shape", [candidate], [ir.AttrInt64("start", 0), ir.AttrInt64("end", 1)], name="hoist.candidates")
    added = [rows]
    rows.outputs[0].name = "hoist.candidates"
    for spec in signature.inputs:
        if spec.role != "request":
            continue
        value = by_name[spec.name]
        target = rows.outputs[0]
        if len(spec.shape) > 1:
            ones = ir.Value(name=f"hoist.ones.{spec.name}", const_value=ir.tensor([1] * (len(spec.shape) - 1), dtype=ir.DataType.INT64))
            graph.register_initializer(ones)
            whole = ir.Node("", "Concat", [target, ones], [ir.AttrInt64("axis", 0)], name=f"hoist.shape.{spec.name}")
            whole.outputs[0].name = f"hoist.shape.{spec.name}"
            added.append(whole)
            target = whole.outputs[0]
        repeat = ir.Node("", "Expand", [value, target], name=f"hoist.repeat.{spec.name}")
        repeat.outputs[0].name = f"hoist.repeat.{spec.name}"
        ir.convenience.replace_all_uses_with(value, repeat.outputs[0])
        repeat.replace_input_with(0, value)
        value.shape = ir.Shape((1, *spec.shape[1:]))
        added.append(repeat)
    graph.insert_before(graph[0], added)


def fold(model: ir.Model) -> None:
    """Compute what depends on weights alone, of whatever size: a weight that is cut out of another one, or turned."""
    optimizer.fold_constants(model, input_size_limit=2**31, output_size_limit=2**31, should_fold=_may_fold)
    RemoveUnusedNodesPass()(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)


def _may_fold(node: ir.Node) -> bool | None:
    return False if node.op_type in {"Expand", "Tile", "ConstantOfShape", "OneHot", "EyeLike"} else None
