from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from liftgate.core.signature import InputSpec
from liftgate.optimize.convert.onnx_graph import to_onnx
from liftgate.optimize.convert.tables import with_tables
from liftgate.runtime.archive import quiet
from liftgate.runtime.onnx_signature import signature_from_graph
from liftgate.runtime.program import signature_of
from torch import nn

# `rows_of_table`, and rows per id column.
Ids = tuple[int | None, dict[int | None, int | None]]
SIZES = {"items": (50, 2), "users": (9, 2), "fields": (60, 2)}
SOMEWHERE: dict[int | None, int | None] = {None: None}


def ids_of(spec: InputSpec) -> Ids:
    return spec.rows_of_table, {column.column: column.rows_of_table for column in spec.id_columns}


def ids_in(inputs: str, body: str) -> list[Ids]:
    """The ids of a graph with these inputs; `_3` is the constant 3 and `v3` a vector of it, type 7 is int64."""
    constants = "".join(f"_{n} = Constant <value = int64 {{{n}}}> ()\nv{n} = Constant <value = int64[1] {{{n}}}> ()\n" for n in range(7))
    text = f'<ir_version: 10, opset_import: ["" : 18]>\nranker ({inputs}) => (float[rows] score) {{\n{constants}{body}\n}}'
    tables = [ir.tensor(np.zeros(shape, np.float32), name=name) for name, shape in SIZES.items() if f"({name}," in body]
    model = ir.from_onnx_text(text, initializers=tables)
    return [ids_of(spec) for spec in with_tables(signature_from_graph(model, "m.onnx"), model).inputs]


@pytest.mark.parametrize(
    ("dtype", "body", "expected"),
    [
        # a slice of columns, cast: how DeepCTR reads its matrix
        ("float", "part = Slice (x, v1, v3, v1) ids = Cast <to = 7> (part) score = Gather (items, ids)", (None, {1: 50, 2: 50})),
        # one column at a time
        ("float", "one = Gather <axis = 1> (x, _2) ids = Cast <to = 7> (one) score = Gather (users, ids)", (None, {2: 9})),
        # picked by a list of columns that a constant holds
        (
            "float",
            "some = Concat <axis = 0> (v3, v0) part = Gather <axis = 1> (x, some) ids = Cast <to = 7> (part) score = Gather (items, ids)",
            (None, {0: 50, 3: 50}),
        ),
        # split, turned and put together again
        (
            "float",
            """a, b = Split <axis = 1, num_outputs = 2> (x)
            turned = Transpose <perm = [1, 0]> (b)
            long = Cast <to = 7> (turned)
            minus = Constant <value = int64[1] {-1}> ()
            flat = Reshape (long, minus)
            score = Gather (items, flat)""",
            (None, {2: 50, 3: 50}),
        ),
        # integers whose columns have tables of their own
        (
            "int64",
            "a = Gather <axis = 1> (x, _0) u = Gather (users, a) b = Slice (x, v1, v4, v1) i = Gather (items, b) score = Add (u, i)",
            (None, {0: 9, 1: 50, 2: 50, 3: 50}),
        ),
        # one table for all
        ("int64", "score = Gather (items, x)", (50, {})),
        ("float", "ids = Cast <to = 7> (x) score = Gather (items, ids)", (50, {})),
        # an offset per column into one table for all fields leaves each field fewer rows
        (
            "int64",
            "begins = Constant <value = int64[4] {0, 10, 30, 40}> () at = Add (x, begins) score = Gather (fields, at)",
            (None, {0: 60, 1: 50, 2: 30, 3: 20}),
        ),
        # the same ids in two tables: the smaller one counts
        ("int64", "i = Gather (items, x) u = Gather (users, x) score = Add (i, u)", (9, {})),
        # masks and numbers are no lookups
        ("float", "ids = Cast <to = 7> (x) there = Equal (ids, _0) score = Cast <to = 1> (there)", (None, {})),
        ("int64", "score = Cast <to = 1> (x)", (None, {})),
        # ids of tables that are no constants, as far as they are known
        ("float", "part = Slice (x, v1, v3, v1) ids = Cast <to = 7> (part) score = Gather (x, ids)", (None, {1: None, 2: None})),
        # a bucket is made of a number, not an id
        (
            "float",
            "part = Slice (x, v0, v1, v1) ten = Mul (part, part) ids = Cast <to = 7> (ten) score = Gather (items, ids)",
            (None, SOMEWHERE),
        ),
        ("int64", "two = Mul (x, _2) score = Gather (items, two)", (None, {})),
        # what a choice of experts picks is no id
        ("float", "best = ArgMax <axis = 1> (x) score = Gather (items, best)", (None, {})),
        # one-hot, and an index of two components
        (
            "float",
            "one = Gather <axis = 1> (x, _2) onoff = Constant <value = float[2] {0.0, 1.0}> () score = OneHot (one, _6, onoff)",
            (None, {2: 6}),
        ),
        ("int64", "pair = Slice (x, v1, v3, v1) score = GatherND (items, pair)", (None, {1: 50, 2: 2})),
    ],
)
def test_the_columns_that_are_looked_up_are_found(dtype: str, body: str, expected: Ids) -> None:
    assert ids_in(f"{dtype}[rows, 4] x", body) == [expected]


def test_inputs_that_meet_before_a_lookup_are_told_apart() -> None:
    body = "part = Slice (x, v1, v2, v1) cast = Cast <to = 7> (part) both = Concat <axis = 1> (user, cast) score = Gather (items, both)"
    assert ids_in("int64[rows, 1] user, float[rows, 3] x", body) == [(50, {}), (None, {1: 50})]


@pytest.mark.parametrize(
    ("shape", "body", "expected"),
    [
        ("rows", "ids = Cast <to = 7> (x) score = Gather (items, ids)", (50, {})),
        ("rows", "ids = Cast <to = 7> (x) score = Gather (x, ids)", (None, SOMEWHERE)),
        ("rows, length", "ids = Cast <to = 7> (x) score = Gather (items, ids)", (50, {})),
        ("rows, length", "part = Slice (x, v0, v1, v1) ids = Cast <to = 7> (part) score = Gather (items, ids)", (None, SOMEWHERE)),
        ("rows, length, 3", "one = Gather <axis = 2> (x, _1) ids = Cast <to = 7> (one) score = Gather (items, ids)", (None, {1: 50})),
        ("rows, 2, 3", "one = Gather <axis = 1> (x, _1) ids = Cast <to = 7> (one) score = Gather (items, ids)", (None, SOMEWHERE)),
    ],
)
def test_columns_are_those_of_the_last_axis(shape: str, body: str, expected: Ids) -> None:
    assert ids_in(f"float[{shape}] x", body) == [expected]


class Matrix(nn.Module):
    """As DeepCTR-Torch reads a batch: sparse features, a masked history with its length, and numbers, all in one float matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(40, 4), nn.Embedding(70, 4)
        self.last = nn.Linear(10, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        user, price, item = self.users(batch[:, 0:1].long()), batch[:, 1:3], self.items(batch[:, 3:4].long())
        history = self.items(batch[:, 4:9].long())
        mask = torch.arange(5).unsqueeze(0) < batch[:, 9:10].long()
        taste = (history * mask.unsqueeze(-1)).sum(1)
        shown = (batch[:, 4:9].long() != 0).any(1, keepdim=True)
        score: torch.Tensor = self.last(torch.cat([user[:, 0], price, taste * shown + item[:, 0]], 1))
        return score.squeeze(-1)


def test_ids_inside_a_float_matrix_are_found_in_an_exported_model() -> None:
    with quiet():
        program = torch.export.export(Matrix().eval(), (torch.ones(7, 10),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},))
    signature = signature_of(program, "matrix")
    (spec,) = with_tables(signature, to_onnx(program, signature, "matrix")).inputs
    assert ids_of(spec) == (None, {0: 40, 3: 70, **dict.fromkeys(range(4, 9), 70)})
    assert spec.holds_ids
