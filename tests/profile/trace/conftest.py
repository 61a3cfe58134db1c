from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from onnx import parser

USERS, ITEMS, WIDTH, WIDE = 40, 200, 16, 4096
SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request", rows_of_table=USERS),
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate", rows_of_table=ITEMS),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)
BODY = """u = Gather <axis = 0> (users, user)
    i = Gather <axis = 0> (items, item)
    product = Mul (u, i)
    last = Constant <value = int64[1] {1}> ()"""
PLAIN = f"{BODY}\n    score = ReduceSum <keepdims = 0> (product, last)"
# The same, and a multiplication beside which everything else takes no time.
SLOWED = f"""{BODY}
    wide = MatMul (product, tower)
    sum = ReduceSum <keepdims = 0> (product, last)
    most = ReduceMax <keepdims = 0> (wide, last)
    score = Add (sum, most)"""
MakeTower = Callable[..., ModelArtifact]


@pytest.fixture
def make_tower(store: Store) -> MakeTower:
    """Factorization models with named nodes; a `slowed` one has a big MatMul called tower/MatMul."""

    def make(name: str, *, slowed: bool = False) -> ModelArtifact:
        rng = np.random.default_rng(0)
        tables = {"users": (USERS, WIDTH), "items": (ITEMS, WIDTH), **({"tower": (WIDTH, WIDE)} if slowed else {})}
        text = f"""<ir_version: 10, opset_import: ["" : 18]>
ranker (int64[rows] user, int64[rows] item) => (float[rows] score) {{
    {SLOWED if slowed else PLAIN}
}}"""
        model = parser.parse_model(text)
        names = {"u": "user/Gather", "i": "item/Gather", "product": "interaction/Mul", "wide": "tower/MatMul"}
        for node in model.graph.node:
            node.name = names.get(node.output[0], "")
        arrays = {key: rng.normal(size=shape).astype(np.float32) for key, shape in tables.items()}
        model.graph.initializer.extend(onnx.numpy_helper.from_array(array, key) for key, array in arrays.items())
        with store.draft(name) as draft:
            onnx.save(model, draft.model_path)
            draft.signature, draft.source = SIGNATURE, "test"
            draft.opset, draft.parameters = 18, sum(array.size for array in arrays.values())
            return store.commit(draft)

    return make


@pytest.fixture
def no_ptrace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that lets py-spy look at nothing."""
    sampler = tmp_path / "py-spy"
    sampler.write_text("#!/bin/sh\necho 'Error: Permission Denied' >&2\nexit 1\n")
    sampler.chmod(0o755)
    monkeypatch.setattr("liftgate.profile.trace.sampler.shutil.which", lambda *_, **__: str(sampler))
