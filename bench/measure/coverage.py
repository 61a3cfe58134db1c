"""How often 95 % intervals hold what they should, on simulated machines whose true quantiles are known."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from ...core.verdict import Outcome
from ...profile.measure import Plan, rounds_of_launches
from ...profile.result import QUANTILES
from ...profile.sequential import paired_rounds, planned_looks
from ...profile.statistics import absolute_gate, quantile_estimate

Floats = npt.NDArray[np.float64]
Blocks = list[list[npt.NDArray[np.int64]]]

LAUNCHES, BLOCK, QUEUE_BLOCK = 8, 25, 80
# Requests before a queue counts as settled.
_SETTLING = 2000
# As long as those of a real measurement: 1 1 2 2 4 4 4 4.
ROUNDS = rounds_of_launches(Plan(block=BLOCK, warmup=0, rounds_per_launch=40), LAUNCHES)


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A machine: lognormal requests of spread 10 %, and what disturbs them.

    `drift` is the standard deviation of an AR(1) factor (0.9 from block to block), `bursts` how often per block a neighbour begins to slow
    everything by a quarter for five blocks on average, `spikes` the share of requests that take twice as long on average, and `luck` the
    spread between processes. With a `queue` they are latencies of a queue that is busy for that share of the time (M/D/1, blocks of 80
    consecutive requests), as in a trial of `profile sweep`. `launches` has the rounds of each.
    """

    name: str
    drift: float = 0.0
    bursts: float = 0.0
    spikes: float = 0.0
    luck: float = 0.0
    queue: float = 0.0
    launches: tuple[int, ...] = ROUNDS


WORLDS = (
    World(name="independent requests"),
    World(name="drift 3 %", drift=0.03),
    World(name="bursts of a neighbour", bursts=0.02),
    World(name="spikes", spikes=0.02),
    World(name="processes differ by 4 %", luck=0.04),
    World(name="drift, bursts, spikes and luck", drift=0.03, bursts=0.02, spikes=0.02, luck=0.01),
    World(name="one launch of 10 rounds, independent", launches=(10,)),
    World(name="one launch of 10 rounds, drift 3 %", drift=0.03, launches=(10,)),
    World(name="three launches (1 1 2), bursts", bursts=0.02, launches=(10, 10, 20)),
    World(name="a sweep's trial, 50 % busy", queue=0.5, launches=(10,)),
    World(name="a sweep's trial, 75 % busy", queue=0.75, launches=(10,)),
)


def simulate(world: World, rng: np.random.Generator) -> tuple[Blocks, Blocks]:
    """Two equal models measured in interleaved rounds, by launch and round."""
    control: Blocks = []
    treatment: Blocks = []
    for rounds in world.launches:
        if world.queue:
            control.append(_queue(world.queue, rounds, rng))
            treatment.append(_queue(world.queue, rounds, rng))
            continue
        shared = _drift(world.drift, 2 * rounds, rng) + _bursts(world.bursts, 2 * rounds, rng)
        first = rng.integers(0, 2, rounds)
        turns = np.arange(0, 2 * rounds, 2)
        control.append(_launch(world, shared[turns + first], rng))
        treatment.append(_launch(world, shared[turns + 1 - first], rng))
    return control, treatment


def _launch(world: World, shared: Floats, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    logs = rng.normal(0, 0.1, (len(shared), BLOCK)) + shared[:, None] + rng.normal(0, world.luck)
    spikes = np.where(rng.random(logs.shape) < world.spikes, 1 + rng.exponential(1.0, logs.shape), 1.0)
    return list((np.exp(logs) * spikes * 1e6).astype(np.int64))


def _queue(busy: float, rounds: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Latencies at one server of constant service of 1 ms and Poisson arrivals (Lindley 1952)."""
    gaps = rng.exponential(1 / busy, _SETTLING + rounds * QUEUE_BLOCK)
    walk = np.concatenate([[0.0], np.cumsum(1.0 - gaps)])
    waits = walk - np.minimum.accumulate(walk)
    latency = (1.0 + waits[-rounds * QUEUE_BLOCK :]) * 1e6
    return list(latency.astype(np.int64).reshape(rounds, QUEUE_BLOCK))


def _drift(deviation: float, count: int, rng: np.random.Generator) -> Floats:
    found = np.zeros(count)
    steps = rng.normal(0, deviation * np.sqrt(1 - 0.81), count)
    found[0] = rng.normal(0, deviation)
    for i in range(1, count):
        found[i] = 0.9 * found[i - 1] + steps[i]
    return found


def _bursts(start: float, count: int, rng: np.random.Generator) -> Floats:
    on = rng.random() < start / (start + 0.2)
    found = np.zeros(count)
    for i in range(count):
        on = rng.random() >= 0.2 if on else rng.random() < start
        found[i] = 0.22 if on else 0.0
    return found


def true_quantiles_ms(world: World, rng: np.random.Generator) -> dict[str, float]:
    """Of as many requests as 400 pairs with launches of the usual length have."""
    runs = 400 * sum(ROUNDS) // sum(world.launches)
    many = np.concatenate([block for _ in range(runs) for model in simulate(world, rng) for launch in model for block in launch])
    return {name: float(np.quantile(many, p)) / 1e6 for name, p in QUANTILES.items()}


def rates(trials: int, worlds: Sequence[World] = WORLDS, seed: int = 0) -> list[str]:
    """Markdown: per world, how many intervals of `trials` pairs of equal models hold the true quantile and the true ratio, which is 1.

    A bound that is unknown excludes nothing; how often one is, and how often intervals with two bounds hold, is told beside.
    """
    lines = [
        f"{trials} pairs of equal models, launches of {', '.join(map(str, ROUNDS))} rounds of {BLOCK} requests where nothing else is said:"
        " how many intervals hold the truth",
        "",
        "| machine | p50 | p95 | p99 | a bound unknown (p95, p99) | both known (p95, p99) | ratio p50 | ratio p95 | ratio p99 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for world in worlds:
        rng = np.random.default_rng(seed)
        true_ms = true_quantiles_ms(world, rng)
        held, ratios, known, held_known = (dict.fromkeys(QUANTILES, 0) for _ in range(4))
        for _ in range(trials):
            pair = simulate(world, rng)
            for name, p in QUANTILES.items():
                for launches in pair:
                    found = quantile_estimate(launches, p)
                    holds = (found.low or 0.0) <= true_ms[name] <= (found.high or np.inf)
                    bounded = found.low is not None and found.high is not None
                    held[name] += holds
                    known[name] += bounded
                    held_known[name] += bounded and holds
                ratio = paired_rounds(*pair, p).estimate()
                ratios[name] += (ratio.low or 0.0) <= 1 <= (ratio.high or np.inf)
        absolute = " | ".join(f"{held[q] / (2 * trials):.1%}" for q in QUANTILES)
        unknown = ", ".join(f"{1 - known[q] / (2 * trials):.0%}" for q in ("p95", "p99"))
        two = ", ".join(f"{held_known[q] / max(known[q], 1):.1%}" for q in ("p95", "p99"))
        relative = " | ".join(f"{ratios[q] / trials:.1%}" if len(world.launches) > 1 else "" for q in QUANTILES)
        lines.append(f"| {world.name} | {absolute} | {unknown} | {two} | {relative} |")
    return lines


def false_decisions(trials: int, worlds: Sequence[World] = WORLDS[1:6], *, alpha: float = 0.05, seed: int = 0) -> list[str]:
    """Markdown: how often an absolute gate at the true quantile decides, in `trials` pairs; each may happen `alpha` of the time at most."""
    points = planned_looks(LAUNCHES)[1:]
    lines = [
        f"{2 * trials} gates whose limit is the true quantile, alpha {alpha:g}, looked at after {' and '.join(map(str, points))} launches",
        "",
        "| machine | p50 false PASS | false FAIL | p95 false PASS | false FAIL | p99 false PASS | false FAIL |",
        "|---|---|---|---|---|---|---|",
    ]
    for world in worlds:
        rng = np.random.default_rng(seed)
        limits_ms = true_quantiles_ms(world, rng)
        counts = dict.fromkeys(((q, o) for q in QUANTILES for o in (Outcome.PASS, Outcome.FAIL)), 0)
        for launches in (model for _ in range(trials) for model in simulate(world, rng)):
            for name, p in QUANTILES.items():
                asked = (absolute_gate(launches[:n], p, limits_ms[name], alpha / len(points)).outcome for n in points)
                decided = next((outcome for outcome in asked if outcome is not Outcome.UNDECIDED), None)
                if decided is not None:
                    counts[name, decided] += 1
        lines.append(f"| {world.name} | {' | '.join(f'{count / (2 * trials):.1%}' for count in counts.values())} |")
    return lines
