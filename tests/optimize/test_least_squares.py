"""Fits from sums over rows, against numpy's own least squares on the rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from liftgate.optimize.passes.least_squares import Moments, Part, elimination, factors, refit

ROWS, INPUTS, OUTPUTS = 200, 6, 3
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, INPUTS)) @ RANDOM.normal(size=(INPUTS, INPUTS)) + 1
W = RANDOM.normal(size=(INPUTS, OUTPUTS))
Y = X @ W
ONES = np.ones((ROWS, 1))


def moments(x: np.ndarray = X, y: np.ndarray = Y, weight: np.ndarray | None = None) -> Moments:
    found = Moments.empty(x.shape[1], y.shape[1])
    for part in np.array_split(np.arange(len(x)), 7):
        found.add(x[part], y[part], None if weight is None else weight[part])
    return found


def lost(columns: tuple[int, ...]) -> float:
    """The squared error that is left when Y is fitted with these columns and a constant."""
    chosen = np.concatenate([X[:, columns], ONES], axis=1)
    best, *_ = np.linalg.lstsq(chosen, Y, rcond=None)
    return float(((Y - chosen @ best) ** 2).sum())


def test_a_fit_is_that_of_least_squares_with_a_constant() -> None:
    columns = np.array([0, 2, 5])
    expected, *_ = np.linalg.lstsq(np.concatenate([X[:, columns], ONES], axis=1), Y, rcond=None)
    found = refit(moments(), columns, W, bias=True, ridge=1e-12)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    relative = np.sqrt(lost((0, 2, 5)) / ((Y - Y.mean(axis=0)) ** 2).sum())
    assert moments().error(found, columns) == pytest.approx(relative, rel=1e-6)


def test_a_weight_of_two_is_a_row_counted_twice() -> None:
    weight = np.where(np.arange(ROWS) < 50, 2.0, 1.0)
    twice = moments(np.concatenate([X, X[:50]]), np.concatenate([Y, Y[:50]]))
    np.testing.assert_allclose(moments(weight=weight).gram, twice.gram)
    assert moments(weight=weight).variance == pytest.approx(twice.variance)


def test_without_any_information_the_weights_stay_as_they_were() -> None:
    nothing = Moments.empty(INPUTS, OUTPUTS)
    nothing.add(np.zeros((9, INPUTS)), np.zeros((9, OUTPUTS)))
    np.testing.assert_allclose(refit(nothing, np.array([1, 4]), W, bias=True)[:-1], W[[1, 4]], rtol=1e-6)


def test_units_leave_in_the_order_that_trying_every_one_gives() -> None:
    order = elimination([Part(moments(), W, np.arange(INPUTS)[:, None], bias=True)], ridge=1e-12)
    left = tuple(range(INPUTS))
    for unit in order[:-1]:
        costs = {one: lost(tuple(other for other in left if other != one)) for one in left}
        assert unit == min(costs, key=lambda one: costs[one])
        left = tuple(other for other in left if other != unit)


def test_pairs_of_columns_leave_together() -> None:
    units = np.arange(INPUTS).reshape(3, 2)
    order = elimination([Part(moments(), W, units, bias=True)], ridge=1e-12)
    costs = {unit: lost(tuple(sorted(set(range(INPUTS)) - set(units[unit].tolist())))) for unit in range(3)}
    assert order[0] == min(costs, key=lambda unit: costs[unit])


def test_two_readers_decide_together_each_relative_to_its_variance() -> None:
    # Alone, the first reader would lose unit 1 and the second, whose outputs are a thousand times larger, unit 0.
    x = RANDOM.normal(size=(ROWS, 3))
    first, second = np.array([[1.0], [0.1], [1.0]]), 1000 * np.array([[0.3], [1.0], [1.0]])
    parts = [Part(moments(x, x @ w), w, np.arange(3)[:, None], bias=True) for w in (first, second)]
    assert [int(elimination([part])[0]) for part in parts] == [1, 0]
    # Together: unit 0 costs 1/2.01 + 0.09/2.09, unit 1 0.01/2.01 + 1/2.09.
    assert elimination(parts)[0] == 1


@pytest.mark.parametrize("rank", [1, 2])
def test_factors_lose_what_the_small_singular_values_of_the_outputs_hold(rank: int) -> None:
    centred = Y - Y.mean(axis=0)
    singular = np.linalg.svd(centred, compute_uv=False)
    found = factors(moments(), W, bias=True, ridge=1e-12)
    error = moments().error(found.weights(rank), np.arange(INPUTS))
    assert error == pytest.approx(np.sqrt((singular[rank:] ** 2).sum() / (singular**2).sum()), rel=1e-5)


def test_no_pair_of_columns_explains_more_than_the_chosen_one_on_easy_data() -> None:
    x = RANDOM.normal(size=(ROWS, 4))
    weights = np.array([[3.0], [0.1], [2.0], [0.2]])
    kept = set(elimination([Part(moments(x, x @ weights), weights, np.arange(4)[:, None], bias=True)])[2:].tolist())
    pairs = list(itertools.combinations(range(4), 2))
    errors = [float(np.linalg.lstsq(x[:, list(pair)], x @ weights, rcond=None)[1][0]) for pair in pairs]
    assert kept == set(pairs[int(np.argmin(errors))])
