"""Divide the difference of two models over their nodes, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from ...core.estimate import Estimate
from ..sequential import FEWEST_LAUNCHES
from .explanation import Change, Direction, Status, Step, Tail, TailPart
from .matching import Pair, match_nodes
from .nodes import Node
from .times import Floats, Integers, Times, estimates, resampled, slowest

_MIDDLE = (0.1, 0.9)
_MATERIAL = 0.02
_ALPHA, _LAUNCH_ALPHA = 0.05, 0.01
_TAIL_DRAWS = 300
_BARS = 8
OUTSIDE = "outside nodes"


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """The same requests asked of both models, row by row: `round` (over all launches) and `launch`, int64 `[requests]`."""

    control: Times
    treatment: Times
    round: Integers
    launch: Integers


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """The difference and its parts."""

    pairs: int
    rounds: int
    direction: Direction
    control_us: Estimate
    treatment_us: Estimate
    difference_us: Estimate
    nodes: tuple[Change, ...]
    operators: tuple[Change, ...]
    outside: Change
    waterfall: tuple[Step, ...]
    tail: Tail


class _Row(msgspec.Struct, frozen=True):
    """What one line of a table sums: nodes of the control and of the treatment."""

    name: str
    op: str
    control: tuple[int, ...]
    treatment: tuple[int, ...]
    pair: Pair | None = None


def attribute(paired: Paired, rng: np.random.Generator) -> Attribution:
    """Means over the middle 80 % of each launch's pairs by their whole difference: the same pairs for every part, so that parts add up."""
    a, b = paired.control, paired.treatment
    nodes = [_node_row(pair, a.nodes, b.nodes) for pair in match_nodes(a.nodes, b.nodes)]
    operators = _operator_rows(a.nodes, b.nodes)
    rows = [*nodes, *operators]
    values = np.column_stack(
        [a.infer, b.infer, a.outside, b.outside, *(_sum(a, row.control) for row in rows), *(_sum(b, row.treatment) for row in rows)]
    )
    whole = b.infer - a.infer
    kept = middle(whole, paired.launch)
    means = _Means(values[kept], paired.round[kept], paired.launch[kept], rng)
    difference = means.difference(1, 0)
    direction = _direction(means)
    first, second = 4, 4 + len(rows)
    changes = [means.change(row, first + i, second + i, direction, tests=len(nodes) + 1) for i, row in enumerate(rows)]
    outside = means.change(_Row(OUTSIDE, "", (0,), (0,)), 2, 3, direction, tests=len(nodes) + 1)
    node_changes = tuple(sorted(changes[: len(nodes)], key=lambda c: -_value(c.difference_us)))
    operator_changes = tuple(sorted(changes[len(nodes) :], key=lambda c: -_value(c.difference_us)))
    control, treatment = means.mean(0), means.mean(1)
    return Attribution(
        pairs=int(kept.sum()),
        rounds=means.rounds,
        direction=direction,
        control_us=control,
        treatment_us=treatment,
        difference_us=difference,
        nodes=node_changes,
        operators=operator_changes,
        outside=outside,
        waterfall=waterfall(_value(control), [(c.name, _value(c.difference_us)) for c in (*node_changes, outside)]),
        tail=_tail(paired, operators, rng),
    )


def middle(values: Floats, launches: Integers) -> npt.NDArray[np.bool_]:
    """Which values are among the middle 80 % of their launch: over all of them, whole launches would be cut away and look alike."""
    kept = np.zeros(len(values), dtype=bool)
    for launch in np.unique(launches):
        mine = launches == launch
        low, high = np.quantile(values[mine], _MIDDLE)
        kept |= mine & (values >= low) & (values <= high)
    return kept


def _value(estimate: Estimate) -> float:
    return estimate.value or 0.0


def _sum(times: Times, columns: tuple[int, ...]) -> Floats:
    return np.asarray(times.own[:, list(columns)].sum(axis=1))


def _node_row(pair: Pair, control: Sequence[Node], treatment: Sequence[Node]) -> _Row:
    there = treatment[pair.treatment] if pair.treatment is not None else control[pair.control or 0]
    here = () if pair.control is None else (pair.control,)
    return _Row(there.name, there.op, here, () if pair.treatment is None else (pair.treatment,), pair)


def _operator_rows(control: Sequence[Node], treatment: Sequence[Node]) -> list[_Row]:
    def of(op: str, nodes: Sequence[Node]) -> tuple[int, ...]:
        return tuple(i for i, node in enumerate(nodes) if node.op == op)

    return [_Row(op, op, of(op, control), of(op, treatment)) for op in sorted({n.op for n in (*control, *treatment)})]


class _Means:
    """Means of the columns of `values` `[requests, columns]`, with rounds as the units of chance."""

    def __init__(self, values: Floats, rounds: Integers, launches: Integers, rng: np.random.Generator) -> None:
        numbers, position, counts = np.unique(rounds, return_inverse=True, return_counts=True)
        self.rounds = len(numbers)
        sums = np.zeros((self.rounds, values.shape[1]))
        np.add.at(sums, position, values)
        self._values = values.mean(axis=0)
        of_round = np.zeros(self.rounds, dtype=np.int64)
        of_round[position] = launches
        self._draws = resampled(sums, counts.astype(float), rng, of_round)
        self._by_round = sums / counts[:, None]
        self._by_launch = np.array([values[launches == launch].mean(axis=0) for launch in np.unique(launches)])

    def mean(self, column: int) -> Estimate:
        return estimates(self._values[[column]], self._draws[:, [column]], self.rounds)[0]

    def difference(self, treatment: int, control: int) -> Estimate:
        value = self._values[treatment] - self._values[control]
        return estimates([float(value)], (self._draws[:, treatment] - self._draws[:, control])[:, None], self.rounds)[0]

    def surely(self, treatment: int, control: int, sign: int, *, tests: int) -> bool:
        """Whether the difference has this sign and is 2 % of the control's time.

        By a t test over rounds, corrected for `tests`, and one over launches: a process may be faster than another of the same model
        for its whole life, so rounds alone would call that a difference.
        """
        by_round = sign * (self._by_round[:, treatment] - self._by_round[:, control])
        by_launch = sign * (self._by_launch[:, treatment] - self._by_launch[:, control])
        material = bool(by_round.mean() >= _MATERIAL * self._values[0])
        agreed = len(by_launch) >= FEWEST_LAUNCHES and _positive(by_launch, _LAUNCH_ALPHA)
        return material and agreed and _positive(by_round, _ALPHA / tests)

    def change(self, row: _Row, control: int, treatment: int, direction: Direction, *, tests: int) -> Change:
        status: Status = "new" if not row.control else "removed" if not row.treatment else "both"
        value = float(self._values[treatment] - self._values[control])
        share = None
        if direction != "no difference":
            draws = self._draws[:, 1] - self._draws[:, 0]
            draws = np.where(draws == 0, np.nan, draws)
            shares = (self._draws[:, treatment] - self._draws[:, control]) / draws
            share = estimates([value / float(self._values[1] - self._values[0])], shares[~np.isnan(shares), None], self.rounds)[0]
        return Change(
            name=row.name,
            op=row.op,
            status=status,
            matched="" if row.pair is None else row.pair.matched,
            nodes=(len(row.control), len(row.treatment)),
            control_us=float(self._values[control]) if row.control else None,
            treatment_us=float(self._values[treatment]) if row.treatment else None,
            difference_us=self.difference(treatment, control),
            share=share,
            stands_out=direction != "no difference" and self.surely(treatment, control, 1 if direction == "slower" else -1, tests=tests),
        )


def _positive(values: Floats, alpha: float) -> bool:
    """Whether what `values` are drawn from surely has a mean above 0, by a one-sided t test."""
    if len(values) < 2:
        return False
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return bool(values.mean() > 0 and (error == 0 or stats.t.sf(values.mean() / error, len(values) - 1) < alpha))


def _direction(means: _Means) -> Direction:
    if means.surely(1, 0, 1, tests=2):
        return "slower"
    return "faster" if means.surely(1, 0, -1, tests=2) else "no difference"


def waterfall(start_us: float, parts: Sequence[tuple[str, float]]) -> tuple[Step, ...]:
    """Bars from `start_us` on: the largest parts one by one, `outside nodes` last, and the others together before it."""
    inner = sorted((part for part in parts if part[0] != OUTSIDE), key=lambda part: -abs(part[1]))
    shown, rest = inner[:_BARS], inner[_BARS:]
    bars = [*shown, *([(f"{len(rest)} others", sum(us for _, us in rest))] if rest else []), *(p for p in parts if p[0] == OUTSIDE)]
    steps = []
    for name, us in bars:
        steps.append(Step(name=name, start_us=start_us, end_us=start_us + us))
        start_us += us
    return tuple(steps)


def _tail(paired: Paired, operators: Sequence[_Row], rng: np.random.Generator) -> Tail:
    """The slowest 1 % of each model by themselves: they are seldom the same requests."""
    a, b = paired.control, paired.treatment
    mine = np.column_stack([a.infer, *(_sum(a, row.control) for row in operators), a.outside])
    theirs = np.column_stack([b.infer, *(_sum(b, row.treatment) for row in operators), b.outside])
    numbers = np.unique(paired.round)
    members = [np.flatnonzero(paired.round == number) for number in numbers]

    def tails(rows: Integers) -> tuple[Floats, Floats]:
        x, y = mine[rows], theirs[rows]
        return x[slowest(x[:, 0])].mean(axis=0), y[slowest(y[:, 0])].mean(axis=0)

    control, treatment = tails(np.arange(len(mine)))
    draws = [tails(np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])) for _ in range(_TAIL_DRAWS)]
    before, after = np.array([x for x, _ in draws]), np.array([y for _, y in draws])
    changes = estimates(treatment - control, after - before, len(numbers))
    names = [*(row.name for row in operators), OUTSIDE]
    parts = [TailPart(name=name, difference_us=change) for name, change in zip(names, changes[1:], strict=True)]
    return Tail(
        requests=int(slowest(mine[:, 0]).sum()),
        control_us=estimates(control[:1], before[:, :1], len(numbers))[0],
        treatment_us=estimates(treatment[:1], after[:, :1], len(numbers))[0],
        difference_us=changes[0],
        parts=tuple(sorted(parts, key=lambda part: -_value(part.difference_us))),
        waterfall=waterfall(float(control[0]), [(part.name, _value(part.difference_us)) for part in parts]),
    )
