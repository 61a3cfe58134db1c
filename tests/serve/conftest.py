from __future__ import annotations

from pathlib import Path

import onnx
import onnx.parser
import pytest
from liftgate.core.signature import InputSpec, Layout, OutputSpec, Signature
from liftgate.core.store import Store

# score = item, score = -item, and one that is NaN for every item above 100: the square root of a negative number.
HIGH = "y = Cast<to=1>(item)"
LOW = """z = Cast<to=1>(item)
y = Neg(z)"""
NAN_ABOVE_100 = """h = Constant<value = float {100.0}>()
z = Cast<to=1>(item)
d = Sub(h, z)
y = Sqrt(d)"""
# Loops item ** 4 times: not at all for item 0, which warms it up, and for hours from 500 on.
HANG_AT_500 = """square = Mul(item, item)
power = Mul(square, square)
trips = ReduceMax<keepdims=0>(power)
go = Constant<value = bool {1}>()
start = Cast<to=1>(item)
y = Loop(trips, go, start) <body = step (int64 i, bool c, float[rows] x) => (bool d, float[rows] z) {
  d = Identity(c)
  w = Neg(x)
  z = Neg(w)
}>"""


def add_model(store: Store, name: str, body: str, layout: Layout = "rows") -> None:
    users = "rows" if layout == "rows" else "1"
    text = f"""<ir_version: 10, opset_import: ["": 20]>
m (int64[{users}] user, int64[rows] item) => (float[rows] score) {{
  {body}
  u = Cast<to=1>(user)
  zero = Constant<value = float {{0.0}}>()
  nothing = Mul(u, zero)
  score = Add(y, nothing)
}}"""
    signature = Signature(
        inputs=(
            InputSpec(name="user", dtype="int64", shape=("rows" if layout == "rows" else 1,), role="request"),
            InputSpec(name="item", dtype="int64", shape=("rows",), role="candidate", rows_of_table=1000),
        ),
        outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
        layout=layout,
    )
    with store.draft(name) as draft:
        onnx.save(onnx.parser.parse_model(text), draft.model_path)
        draft.signature = signature
        store.commit(draft)


EXPERIMENT = """
version = 1
name = "demo"
control = "control"
slate = 3
item = "item"
arms = [
  { name = "control", model = "high", weight = 50 },
  { name = "treatment", model = "low", weight = 50 },
]
[serving]
timeout = "30 s"
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    add_model(store, "high", HIGH)
    add_model(store, "low", LOW)
    add_model(store, "nan", NAN_ABOVE_100)
    add_model(store, "hang", HANG_AT_500)
    add_model(store, "high-request", HIGH, layout="request")
    return store


@pytest.fixture
def experiment_file(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path
