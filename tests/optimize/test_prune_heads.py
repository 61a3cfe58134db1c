"""Attention heads that are cut out whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from liftgate.core.errors import RefusedStep, UnknownName
from liftgate.optimize.context import StepContext
from liftgate.optimize.steps import run_step
from liftgate.recipes.steps import PruneHeads

from .calibrated import calibrated, numbers, scores, shapes

# Three heads of two numbers each over five positions; `back` undoes the split before the projection.
ATTENTION = """(float[rows,5,4] x) => (float[rows,5,4] score)
<float[4,6] wq = {}, float[4,6] wk = {}, float[4,6] wv = {}, float[6] bv = {}, float[6,4] wo = {},
 int64[4] split = {-1, 5, 3, 2}, int64[3] back = {-1, 5, 6}>
{
    q = MatMul(x, wq)  k = MatMul(x, wk)  v0 = MatMul(x, wv)  v = Add(v0, bv)
    q1 = Reshape(q, split)  k1 = Reshape(k, split)  v1 = Reshape(v, split)
    q2 = Transpose<perm = [0, 2, 1, 3]>(q1)  k2 = Transpose<perm = [0, 2, 3, 1]>(k1)  v2 = Transpose<perm = [0, 2, 1, 3]>(v1)
    s = MatMul(q2, k2)  p = Softmax<axis = -1>(s)  m = MatMul(p, v2)  t = Transpose<perm = [0, 2, 1, 3]>(m)
    r = Reshape(t, back)  score = MatMul(r, wo)
}"""


def attention(folder: Path, text: str = ATTENTION, *, length: int = 5, changed: dict[str, np.ndarray] | None = None) -> StepContext:
    width = 4
    weights = {name: numbers(width, 6, seed=seed, low=-0.5) for seed, name in enumerate(("wq", "wk", "wv"))}
    weights |= {"bv": numbers(6, seed=7), "wo": numbers(6, width, seed=8, low=-0.5), **(changed or {})}
    return calibrated(text, folder, {"x": numbers(30, 2, length, width, seed=9, low=-0.5)}, weights=weights)


def test_a_head_that_says_nothing_goes_without_a_trace(tmp_path: Path) -> None:
    projection = numbers(6, 4, seed=8, low=-0.5)
    projection[2:4] = 0
    context = attention(tmp_path, changed={"wo": projection})
    record, _ = run_step(PruneHeads(keep=0.6), context)
    found = shapes(context.target)
    assert {name: found[name] for name in ("wq", "wk", "wv", "bv", "wo")} == {
        "wq": (4, 4),
        "wk": (4, 4),
        "wv": (4, 4),
        "bv": (4,),
        "wo": (4, 4),
    }
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), atol=1e-3)
    assert (record.numbers["heads_before"], record.numbers["heads_after"]) == (3.0, 2.0)
    assert "wo 3 -> 2 (error" in record.summary


def test_a_head_that_repeats_another_is_made_up_for_by_it(tmp_path: Path) -> None:
    weights = {}
    for seed, name in enumerate(("wq", "wk", "wv")):
        weights[name] = numbers(4, 6, seed=seed, low=-0.5)
        weights[name][:, 4:] = weights[name][:, :2]
    bias = numbers(6, seed=7)
    bias[4:] = bias[:2]
    context = attention(tmp_path, changed={**weights, "bv": bias})
    run_step(PruneHeads(keep=0.6), context)
    np.testing.assert_allclose(scores(context, after=True), scores(context, after=False), atol=2e-3)


def test_a_length_that_equals_the_number_of_heads_is_refused(tmp_path: Path) -> None:
    text = ATTENTION.replace("x) => (float[rows,5", "x) => (float[rows,3").replace("rows,5,4] x", "rows,3,4] x")
    text = text.replace("{-1, 5, 3, 2}", "{-1, 3, 3, 2}").replace("{-1, 5, 6}", "{-1, 3, 6}")
    context = attention(tmp_path, text, length=3)
    with pytest.raises(RefusedStep, match="without some heads of wo"):
        run_step(PruneHeads(keep=0.6), context)
    assert not context.target.exists()


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    text = "(float[rows,4] x) => (float[rows,1] score) <float[4,1] w = {1, 1, 1, 1}> { score = MatMul(x, w) }"
    context = calibrated(text, tmp_path, {"x": numbers(9, 4, 4)})
    with pytest.raises(RefusedStep, match="no attention whose heads are told apart"):
        run_step(PruneHeads(keep=0.5), context)


def test_what_else_reads_the_queries_keeps_every_head(tmp_path: Path) -> None:
    text = ATTENTION.replace("(float[rows,5,4] score)", "(float[rows,5,4] score, float[rows,5,6] q)")
    with pytest.raises(RefusedStep, match="no attention whose heads"):
        run_step(PruneHeads(keep=0.6), attention(tmp_path, text))


def test_a_keep_that_keeps_all_and_unknown_names_are_refused(tmp_path: Path) -> None:
    context = attention(tmp_path)
    with pytest.raises(RefusedStep, match=r"keep 0.9 keeps every head \(wo 3\)"):
        run_step(PruneHeads(keep=0.9), context)
    with pytest.raises(UnknownName, match="unknown attention 'wp'"):
        run_step(PruneHeads(keep=0.5, exclude=("wp",)), context)
