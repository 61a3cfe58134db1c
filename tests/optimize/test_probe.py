from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from liftgate.optimize.cost.cost import cost_of
from liftgate.optimize.cost.lazy_onnx import read_lazily
from liftgate.optimize.cost.sizes import sizes_of

from .onnx_text import cost, graph, signature

TABLE = np.arange(24_000, dtype=np.float32).reshape(3000, 8)  # 96 kB: handed over outside the graph


def write(path: Path, *, external: bool) -> Path:
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> m (float[rows,8] item) => (float score) <float limit = {23000}> {'
        "  large = Greater(table, limit)  places = NonZero(large)  numbers = Cast<to=1>(places)  sum = ReduceSum<keepdims=0>(numbers)"
        "  items = ReduceSum<keepdims=0>(item)  score = Add(sum, items) }"
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(TABLE, "table"))
    onnx.save(proto, path, save_as_external_data=external, location="weights.bin")
    return path


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("read", [ir.load, read_lazily])
def test_shapes_that_weights_decide_are_seen_wherever_the_weights_lie(
    read: Callable[[Path], ir.Model], external: bool, tmp_path: Path
) -> None:
    model = read(write(tmp_path / "m.onnx", external=external))
    found = {node.name: node for node in cost_of(model, signature(model)).nodes}
    # 999 entries are above 23000; NonZero gives two coordinates each, and both are summed.
    assert found["places"].shape == (2, 999)
    assert found["sum"].flops == 1998


LOOKUP = "(int64[rows] item) => (y) <float[3,2] items = {}> { i = Gather(items, item)  g = com.microsoft.Gelu(i)  y = Neg(g) }"


def test_ids_stay_inside_their_tables_in_the_run() -> None:
    model = graph(LOOKUP)
    bare = signature(model)
    known = msgspec.structs.replace(bare, inputs=(msgspec.structs.replace(bare.inputs[0], rows_of_table=3),))
    found = cost_of(model, known, sizes_of(known, candidates=40))
    assert (found.notes, found.nodes[-1].flops) == ((), 80)


def test_a_run_that_fails_says_why_and_leaves_its_nodes_unknown() -> None:
    found = cost(LOOKUP, candidates=40)  # nobody says that ids end at 2
    assert "out of data bounds" in found.notes[0]
    assert [node.op for node in found.unknown] == ["com.microsoft:Gelu", "Neg"]


def test_the_run_has_the_sizes_that_were_asked_for() -> None:
    found = cost("(float[rows,t,2] history) => (y) { g = com.microsoft.Gelu(history)  y = Neg(g) }", candidates=7, dims={"t": 3})
    assert found.nodes[-1].shape == (7, 3, 2)


def test_request_inputs_of_layout_request_are_one_row_in_the_run() -> None:
    text = "(float[1,2] user, float[rows,2] item) => (y) { g = com.microsoft.Gelu(user)  u = Neg(g)  y = Add(u, item) }"
    found = cost(text, request="user", candidates=7, layout="request")
    assert (found.flops.request, found.flops.candidate) == (10 + 2, 14)
