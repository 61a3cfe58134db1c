from __future__ import annotations

from pathlib import Path

import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.profile.budget import Conditions, Max, MaxDrop, MaxRegress, Min, parse_budget, read_budget


def one(text: str) -> str:
    return f"[[gate]]\n{text}"


def test_values_are_read_with_their_units() -> None:
    budget = parse_budget(
        one('metric = "latency_p95"\ninstance = "m5.large"\nmax = "20 ms"\nallow = "emulated"\n')
        + one('metric = "memory"\nmax = "64 MiB"\n')
        + one('metric = "latency_p50"\nmax_regress = "5%"\nlevel = "warn"\nalpha = 0.01\n')
        + one('metric = "ndcg@10"\nmax_drop = "0.5%"\nsegment = "casual"\n')
        + one('metric = "auc"\nmin = 0.6\n')
    )
    assert [g.limit for g in budget.gates] == [
        Max(value=20.0, text="20 ms"),
        Max(value=64 * 2**20, text="64 MiB"),
        MaxRegress(value=0.05, text="5%"),
        MaxDrop(value=0.005, text="0.5%"),
        Min(value=0.6, text="0.6"),
    ]
    assert [g.at and g.at.name for g in budget.gates] == ["m5.large", "local", "local", None, None]
    assert (budget.gates[0].emulated_may_pass, budget.gates[2].level, budget.gates[2].alpha) == (True, "warn", 0.01)
    assert budget.instances == ("m5.large", "local")
    assert budget.quality_metrics == ("ndcg@10", "auc")
    assert [g.name for g in budget.gates][::3] == ["latency_p95 max 20 ms on m5.large", "ndcg@10 max_drop 0.5% for casual"]


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ('metric = "latncy_p95"\nmax = "1 ms"', "gate 1: unknown metric 'latncy_p95'; did you mean 'latency_p95'"),
        ('metric = "latency_p95"\nmax = "1 ms"\ninstance = "m5.lrage"', "unknown instance 'm5.lrage'; did you mean 'm5.large'"),
        ('metric = "latency_p95"\nmax_regres = "5%"', "unknown key 'max_regres'; did you mean 'max_regress'"),
        ('metric = "ndcg@0"\nmin = 0.1', "unknown metric 'ndcg@0'"),
    ],
)
def test_a_mistyped_name_is_an_error_with_a_suggestion(gate: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        parse_budget(one(gate))


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ('metric = "latency_p95"\nmax = 20', "expected a number with a unit"),
        ('metric = "latency_p95"\nmax = "20 MiB"', "expected a number with a unit"),
        ('metric = "latency_p95"', "exactly one of 'max' and 'max_regress' for latency_p95, found none"),
        ('metric = "latency_p95"\nmax = "1 ms"\nmax_regress = "5%"', "found 'max' and 'max_regress'"),
        ('metric = "auc"\nmax = 0.5', "exactly one of 'min' and 'max_drop' for auc, found 'max'"),
        ('metric = "auc"\nmin = "120%"', "expected a share from 0 to 100%"),
        ('metric = "size"\nmax = "1 MiB"\ninstance = "local"', "the same on every instance"),
        ('metric = "size"\nmax = "1 MiB"\nsegment = "casual"', "not measured per segment"),
        ('metric = "auc"\nmin = 0.5\nalpha = 0.7', "alpha"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(gate: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_budget(one(gate))


def test_a_budget_without_gates_is_refused() -> None:
    with pytest.raises(InputError):
        parse_budget("version = 1\n")


def test_a_missing_budget_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a TOML file, found nothing"):
        read_budget(tmp_path / "budget.toml")


def test_a_gate_with_a_rate_is_about_arrivals() -> None:
    one = '[[gate]]\nmetric = "latency_p95"\nmax = "20 ms"\n'
    budget = parse_budget(one + 'rate = "200/s"\n' + one)
    assert budget.conditions == (Conditions(instance="local", rate_per_s=200.0), Conditions(instance="local"))
    assert [g.name for g in budget.gates] == ["latency_p95 max 20 ms on local@200/s", "latency_p95 max 20 ms on local"]
    assert budget.instances == ("local",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('metric = "memory"\nmax = "1 GiB"\nrate = "1/s"', "memory does not depend on how requests arrive"),
        ('metric = "latency_p95"\nmax = "1 ms"\nrate = "200"', "rate: expected a number with a unit"),
        ('metric = "latency_p95"\nmax = "1 ms"\nrate = "0/s"', "rate: expected more than 0"),
    ],
)
def test_rates_that_mean_nothing_are_refused(line: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_budget(f"[[gate]]\n{line}\n")
