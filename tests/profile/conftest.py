from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from liftgate.core.artifact import ModelArtifact
from liftgate.core.requests import Requests
from liftgate.core.signature import InputSpec, OutputSpec, Signature
from liftgate.core.store import Store
from onnx import parser

USERS, ITEMS, WIDTH = 40, 200, 8
SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request", rows_of_table=USERS),
        InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate", rows_of_table=ITEMS),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
ranker (int64[rows] user, int64[rows] item) => (float[rows] score) {
    u = Gather <axis = 0> (users, user)
    i = Gather <axis = 0> (items, item)
    product = Mul (u, i)
    last = Constant <value = int64[1] {1}> ()
    score = ReduceSum <keepdims = 0> (product, last)
}
"""
# The same ranker with one more input.
PRICED_SIGNATURE = Signature(
    inputs=(*SIGNATURE.inputs, InputSpec(name="price", dtype="float32", shape=("rows",), role="candidate")),
    outputs=SIGNATURE.outputs,
)
PRICED_GRAPH = (
    GRAPH.replace("int64[rows] item)", "int64[rows] item, float[rows] price)")
    .replace("score = ReduceSum", "affinity = ReduceSum")
    .replace("(product, last)", "(product, last)\n    score = Sub (affinity, price)")
)
MakeModel = Callable[..., ModelArtifact]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def factors(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(USERS, WIDTH)).astype(np.float32), rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)


@pytest.fixture
def make_model(store: Store) -> MakeModel:
    """Factorization models whose scores are those of seed 0 plus `noise`, less a `price` if `priced`; NaN noise breaks them."""

    def make(name: str, *, noise: float = 0.0, priced: bool = False) -> ModelArtifact:
        users, items = factors()
        items = items + noise * factors(1)[1]
        model = parser.parse_model(PRICED_GRAPH if priced else GRAPH)
        model.graph.initializer.extend([onnx.numpy_helper.from_array(users, "users"), onnx.numpy_helper.from_array(items, "items")])
        with store.draft(name) as draft:
            onnx.save(model, draft.model_path)
            draft.signature, draft.source = PRICED_SIGNATURE if priced else SIGNATURE, "test"
            draft.opset, draft.parameters = 18, users.size + items.size
            return store.commit(draft)

    return make


@pytest.fixture
def requests() -> Requests:
    """120 requests of 40 users, two segments, 30 candidates; what is relevant follows the factors of seed 0 with some noise."""
    rng = np.random.default_rng(3)
    users, items = factors()
    user = np.arange(120) % USERS
    item = np.stack([rng.choice(ITEMS, 30, replace=False) for _ in range(120)])
    affinity = np.einsum("rw,rcw->rc", users[user], items[item]) + rng.normal(size=item.shape)
    return Requests.of(
        {
            "request_id": [f"r{i}" for i in range(120)],
            "user_id": [f"u{u}" for u in user],
            "segment": ["power" if u < 10 else "casual" for u in user],
            "user": user.tolist(),
            "item": item.tolist(),
            "label": (affinity > 3).astype(int).tolist(),
        }
    )
