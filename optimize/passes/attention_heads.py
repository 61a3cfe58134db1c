"""Finding the heads of an attention in an ONNX graph, and cutting some of them out."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx_ir as ir

from ...core.errors import RefusedStep
from ...core.signature import Signature
from ..context import StepContext
from ..cost.shapes import Tensors
from ..cost.sizes import sizes_of
from .linears import (
    Place,
    array_of,
    bias_place,
    inputs_of,
    is_linear,
    matrix_of,
    name_of,
    outputs_of,
    replace,
    set_matrix,
    take,
    take_outputs,
)
from .observe import watch

# Between the projections of queries, keys and values and the one behind the attention: heads are told apart, compared and mixed.
_BETWEEN = frozenset(
    {
        *("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Expand", "Gather", "Split", "Slice", "Concat", "Shape"),
        *("MatMul", "Softmax", "Mul", "Div", "Add", "Sqrt", "Where", "IsNaN", "Cast", "CastLike", "Identity"),
    }
)
_COMPARED = 4
_TOLERANCE = 1e-4


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """An attention of `heads` heads of `size` numbers each; `sources` compute its queries, keys and values, `projection` reads its result.

    `shapes` are constant shapes between them.
    """

    name: str
    heads: int
    size: int
    sources: tuple[ir.Node, ...]
    projection: ir.Node
    shapes: tuple[Place, ...]

    def keep(self, model: ir.Model, kept: np.ndarray, context: StepContext) -> None:
        """Cut out all heads but `kept`; raises RefusedStep when what those compute is not what it was."""
        reads = (self.projection.inputs[0].name if self.projection.inputs[0] is not None else "") or ""
        before = model.clone()
        width = self.heads * self.size
        columns = np.arange(width).reshape(self.heads, self.size)[kept].reshape(-1)
        for source in self.sources:
            parts = outputs_of(source) // width
            chosen = (np.arange(parts)[:, None] * width + columns).reshape(-1)
            place = bias_place(source)
            take_outputs(model, source, chosen)
            if place is not None and place.node is not source:
                take(model, place, -1, chosen)
        for place in self.shapes:
            # Where the heads stand side by side in one axis, an equal number elsewhere means something else (keys and values: 2).
            sizes = {width: len(columns)} if width in place.array else {self.heads: len(kept)}
            replace(model, place, np.array([sizes.get(int(size), int(size)) for size in place.array]))
        set_matrix(model, self.projection, matrix_of(self.projection)[columns])
        self._check(before, model, reads, columns, context=context)

    def _check(self, before: ir.Model, after: ir.Model, reads: str, columns: np.ndarray, *, context: StepContext) -> None:
        where = f"prune_heads {context.where}"
        fix = f"exclude {self.name}: a size in its shapes that equals its number of heads may mean something else"
        try:
            for number, (old, new) in enumerate(zip(watch(before, [reads], context), watch(after, [reads], context), strict=True)):
                wanted, found = old[reads][..., columns], new[reads]
                if wanted.shape != found.shape or np.abs(wanted - found).max(initial=0) > _TOLERANCE * (1 + np.abs(wanted).max(initial=0)):
                    raise RefusedStep(where, f"without some heads of {self.name} the others compute something else", fix=fix)
                if number + 1 == _COMPARED:
                    return
        except RefusedStep:
            raise
        except Exception as error:  # ONNX Runtime raises its own types, which share no public base class
            reason = str(error).splitlines()[0][:200]
            raise RefusedStep(where, f"without some heads of {self.name} the model no longer runs ({reason})", fix=fix) from error


def find_attentions(model: ir.Model, signature: Signature) -> list[Attention]:
    """All attentions whose heads are told apart by constant shapes, in graph order. `model` is `prepared`."""
    sizes = sizes_of(signature)
    shapes = Tensors(model, {spec.name: sizes.shape(spec, signature) for spec in signature.inputs})
    found = (_behind(node, shapes) for node in model.graph if is_linear(node))
    return [attention for attention in found if attention is not None]


def _behind(projection: ir.Node, shapes: Tensors) -> Attention | None:
    """Walk back from what may be the projection behind an attention to the linear nodes before it."""
    width, data = inputs_of(projection), projection.inputs[0]
    if data is None or matrix_of(projection).ndim != 2 or len(list(data.uses())) != 1:
        return None
    between: set[ir.Node] = set()
    sources: dict[ir.Node, None] = {}
    pending = [data]
    while pending:
        node = pending.pop().producer()
        if node is None or node in between:
            continue
        if is_linear(node):
            if outputs_of(node) % width:
                return None
            sources[node] = None
        elif node.op_type in _BETWEEN and node.domain == "":
            between.add(node)
            pending += [value for value in node.inputs if value is not None and value.const_value is None]
        else:
            # A mask is computed from ids or lengths: it has no part in the heads' weights.
            continue
    heads = _heads(between, width, shapes)
    if heads is None or not any(node.op_type == "Softmax" for node in between) or not sources:
        return None
    if sum(outputs_of(source) for source in sources) != 3 * width or not _only_read_between(sources, between, projection):
        return None
    places = [Place(node, 1) for node in between if node.op_type in {"Reshape", "Expand"} and _constant(node)]
    return Attention(
        name=name_of(projection),
        heads=heads,
        size=width // heads,
        sources=tuple(sources),
        projection=projection,
        shapes=tuple(place for place in places if {heads, width} & set(place.array.tolist())),
    )


def _heads(between: set[ir.Node], width: int, shapes: Tensors) -> int | None:
    """The number of heads: what a Softmax is multiplied with has as many columns as one of them."""
    for node in between:
        left = node.inputs[0] if node.op_type == "MatMul" else None
        before = None if left is None else left.producer()
        shape = shapes.shape(node.outputs[0]) if before is not None and before.op_type == "Softmax" else None
        if shape is not None and len(shape) >= 3 and 0 < shape[-1] < width and width % shape[-1] == 0:
            return width // shape[-1]
    return None


def _only_read_between(sources: dict[ir.Node, None], between: set[ir.Node], projection: ir.Node) -> bool:
    """Whether nothing else reads the queries, keys and values, or what is made of them."""
    return all(
        (user in between or user is projection) and not value.is_graph_output()
        for node in (*sources, *_made_of(sources, between))
        for value in node.outputs
        for user, _ in value.uses()
    )


def _made_of(sources: dict[ir.Node, None], between: set[ir.Node]) -> set[ir.Node]:
    """The nodes of `between` that the sources reach."""
    reached: set[ir.Node] = set()
    pending = [*sources]
    while pending:
        for value in pending.pop().outputs:
            for user, _ in value.uses():
                if user in between and user not in reached:
                    reached.add(user)
                    pending.append(user)
    return reached


def _constant(node: ir.Node) -> bool:
    value = node.inputs[1]
    return value is not None and value.const_value is not None and array_of(value).ndim == 1
