from __future__ import annotations

import onnx.parser
import onnx_ir as ir
import pytest
from liftgate.core.errors import InputError
from liftgate.runtime.onnx_signature import signature_from_graph

GRAPH = """
<ir_version: 10, opset_import: ["" : 20]>
ranker (float[{0}] user, float[{1}] history) => (float[{2}] score)
{{
    both = Add(user, history)
    score = ReduceSum(both)
}}
"""


def shapes(user: str, history: str, score: str) -> list[tuple[int | str, ...]]:
    model = ir.from_proto(onnx.parser.parse_model(GRAPH.format(user, history, score)))
    signature = signature_from_graph(model, "m.onnx")
    return [spec.shape for spec in signature.inputs] + [spec.shape for spec in signature.outputs]


def test_unnamed_dimensions_are_rows_only_where_they_lead() -> None:
    assert shapes("?, 4", "?, ?, 4", "?, ?") == [("rows", 4), ("rows", "history_1", 4), ("rows", "score_1")]


def test_named_dimensions_keep_one_name_each() -> None:
    assert shapes("n, t", "n, t", "n") == [("rows", "user_1"), ("rows", "user_1"), ("rows",)]
    assert shapes("?, 4", "n, t", "n") == [("rows", 4), ("rows", "history_1"), ("rows",)]


def test_leading_dimensions_of_two_names_are_refused() -> None:
    with pytest.raises(InputError, match="input 'history': expected the leading dimension 'n', as the other inputs, found 'm'"):
        shapes("n, 4", "m, 4", "n")
