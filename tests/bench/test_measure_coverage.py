from __future__ import annotations

import numpy as np
import pytest
from liftgate.bench.measure.coverage import World, false_decisions, rates, simulate


def test_a_simulated_queue_waits_as_long_as_theory_says() -> None:
    # M/D/1: the mean wait is load / (2 (1 - load)) services; 1.5 ms at 75 %, on top of a service of 1 ms.
    control, treatment = simulate(World(name="queue", queue=0.75, launches=(1000,)), np.random.default_rng(0))
    assert np.concatenate(control[0]).mean() / 1e6 == pytest.approx(2.5, rel=0.05)
    assert not np.array_equal(control[0][0], treatment[0][0])


def test_every_world_has_a_row_of_as_many_cells() -> None:
    worlds = (World(name="steady", launches=(10,)), World(name="drift", drift=0.03, launches=(4, 4, 4)))
    heading, *rows = [line for line in rates(4, worlds) if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows[1:]] == ["| steady", "| drift"]
    assert {line.count("|") for line in (heading, *rows)} == {heading.count("|")}


def test_false_decisions_have_a_row_per_world() -> None:
    found = false_decisions(2, (World(name="steady"), World(name="drift", drift=0.03)))
    assert [line.split(" | ")[0] for line in found[4:]] == ["| steady", "| drift"]
    assert {line.count("|") for line in found[2:]} == {8}
