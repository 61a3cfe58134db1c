"""Racing models on a clock that only their own work moves, so that every number is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest
from liftgate.core.artifact import ModelRef
from liftgate.core.errors import RefusedStep
from liftgate.core.requests import Requests
from liftgate.core.signature import Signature
from liftgate.optimize.context import StepContext
from liftgate.optimize.slower import refuse_slower
from liftgate.optimize.timing import Contender, Race, median_interval, race
from liftgate.recipes.steps import QuantizeDynamic, Step, promises

from .step_context import context_of

MLP = """
<ir_version: 10, opset_import: ["" : 20]>
mlp (float[rows,2] x) => (float[rows,1] score) <float[2,1] w = {1, 2}> { score = MatMul(x, w) }
"""
MS = 1_000_000


class FakeClock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class FakeSession:
    """A session whose requests take `ms(number of the request's rows)` on a fake clock."""

    def __init__(self, clock: FakeClock, signature: Signature, ms: float) -> None:
        self.clock, self.signature, self.ms = clock, signature, ms
        self.ref = ModelRef(name="fake", digest="", runtime="fake", size_bytes=0)
        self.calls = 0

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.clock.now += int(self.ms * MS * len(feeds["x"]))
        self.calls += 1
        return {}


def contender(clock: FakeClock, ms: float, requests: int = 8) -> Contender:
    def run(feeds: Mapping[str, np.ndarray]) -> None:
        clock.now += int(ms * MS * len(feeds["x"]))

    return Contender(name=f"{ms} ms", run=run, feeds=[{"x": np.zeros((i + 1, 2))} for i in range(requests)])


def test_the_ratio_is_that_of_the_same_requests() -> None:
    clock = FakeClock()
    found = race([contender(clock, 0.1), contender(clock, 0.15)], seconds=1.0, clock=clock)
    estimate = found.ratio(level=0.999)
    assert estimate.text(6) == "1.500000 [1.500000, 1.500000]"
    assert found.ratio(0, 1).value == pytest.approx(1 / 1.5)
    assert estimate.n == len(found.block_ns) >= 12


def test_a_race_ends_after_its_seconds_or_as_soon_as_it_is_clear() -> None:
    clock = FakeClock()
    race([contender(clock, 0.1), contender(clock, 0.1)], seconds=0.5, clock=clock)
    assert 0.5 < clock.now / 1e9 < 0.6
    early = FakeClock()
    found = race([contender(early, 0.1), contender(early, 0.2)], seconds=0.5, clear=lambda seen: len(seen.block_ns) > 12, clock=early)
    assert len(found.block_ns) == 18  # looks at 12 blocks and at half as many more


def test_a_slow_model_still_gets_enough_blocks() -> None:
    clock = FakeClock()
    found = race([contender(clock, 10.0, requests=1), contender(clock, 20.0, requests=1)], seconds=0.1, clock=clock)
    assert len(found.block_ns) == 12


def test_one_disturbed_block_moves_neither_ratio_nor_bounds_far() -> None:
    quiet = [(100.0, 110.0)] * 19
    found = Race(names=("a", "b"), block_ns=(*quiet, (100.0, 5000.0)), requests_per_block=1, seed=0)
    assert found.ratio(level=0.99).text(3) == "1.100 [1.100, 1.100]"


def test_the_median_interval_is_conovers() -> None:
    # Conover (1999), section 3.2: for n = 16 the 95 % interval of the median is X(4) to X(13); P(fewer than 4 of 16) = 0.0106.
    found = median_interval(np.arange(1.0, 17.0), 0.95)
    assert (found.value, found.low, found.high) == (8.5, 4.0, 13.0)


def test_too_few_blocks_have_no_bounds() -> None:
    assert median_interval(np.arange(10.0), 0.999).low is None
    assert median_interval(np.arange(11.0), 0.999).low == 0.0


def timed_step(folder: Path, before_ms: float, after_ms: float, *, requests: bool = True, step: Step | None = None) -> dict[str, float]:
    clock = FakeClock()
    context: StepContext = context_of(MLP, folder, {"x": np.zeros((4, 2), dtype=np.float32)}, calibrated=True)
    if requests:
        data: dict[str, Sequence[object]] = {"request_id": ["a", "b"], "user_id": ["u", "v"], "x": [[[0.0, 0.0]], [[1.0, 1.0], [2.0, 2.0]]]}
        context = msgspec.structs.replace(context, requests=Requests.of(data))
    sides = [FakeSession(clock, context.signature, ms) for ms in (before_ms, after_ms)]
    return refuse_slower(step or QuantizeDynamic(), sides[0], sides[1], context, clock=clock)


def test_a_step_that_makes_the_model_slower_is_refused_with_its_numbers(tmp_path: Path) -> None:
    with pytest.raises(RefusedStep, match=r"quantize_dynamic model: makes the model slower: .* ratio 1\.20 \[1\.20, 1\.20\]") as error:
        timed_step(tmp_path, 1.0, 1.2)
    assert "exclude nodes" in error.value.fix


def test_a_faster_model_is_recorded(tmp_path: Path) -> None:
    numbers = timed_step(tmp_path, 1.0, 0.5)
    assert numbers["latency_ratio"] == pytest.approx(0.5)
    assert numbers["request_us_after"] == pytest.approx(numbers["request_us_before"] / 2)


def test_a_few_microseconds_are_no_reason_to_refuse(tmp_path: Path) -> None:
    assert timed_step(tmp_path, 0.005, 0.01)["latency_ratio"] == pytest.approx(2.0)


def test_nothing_is_timed_without_requests(tmp_path: Path) -> None:
    assert timed_step(tmp_path, 1.0, 2.0, requests=False) == {}


def test_every_step_says_what_it_is_for() -> None:
    assert {kind.__name__ for kind in get_args(Step) if not hasattr(kind, "promise")} == set()
    assert promises(QuantizeDynamic()) == "speed"
