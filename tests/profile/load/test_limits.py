from __future__ import annotations

from pathlib import Path

import pytest
from liftgate.core.errors import InputError
from liftgate.profile.load.limits import LatencyLimit, parse_limits

P95 = LatencyLimit(quantile="p95", p=0.95, limit_ms=20.0)


@pytest.mark.parametrize("text", ["p95 20 ms", "p95<=20ms", " p95: 0.02 s "])
def test_a_limit_is_a_quantile_and_a_time(text: str) -> None:
    assert parse_limits(text, instance="local") == (P95,)


def test_several_limits_are_separated_by_commas() -> None:
    found = parse_limits("p95 20 ms, p99.9 50 ms", instance="local")
    assert [(one.quantile, round(one.p, 6), one.limit_ms) for one in found] == [("p95", 0.95, 20.0), ("p99.9", 0.999, 50.0)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'expected limits such as "p95 20 ms"'),
        ("fast", 'expected limits such as "p95 20 ms"'),
        ("p95 20", "expected a number with a unit"),
        ("p95 20 MiB", "expected a number with a unit"),
        ("p0 20 ms", "expected a quantile above p0"),
        ("p95 0 ms", "expected a quantile above p0"),
        ("p95 20 ms, fast", "expected a quantile and a time such as \"p95 20 ms\", found 'fast'"),
    ],
)
def test_words_that_are_no_limit_are_refused(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_limits(text, instance="local")
    assert words in str(caught.value)


def test_a_budget_file_gives_its_latency_limits_for_the_instance(tmp_path: Path) -> None:
    path = tmp_path / "budget.toml"
    path.write_text(
        '[[gate]]\nmetric = "latency_p95"\nmax = "20 ms"\n'
        '[[gate]]\nmetric = "latency_p99"\ninstance = "m5.large"\nmax = "50 ms"\nalpha = 0.01\n'
        '[[gate]]\nmetric = "latency_p50"\nmax_regress = "5%"\n'
    )
    assert parse_limits(str(path), instance="local") == (P95,)
    assert parse_limits(str(path), instance="m5.large")[0].alpha == 0.01
    with pytest.raises(InputError, match=r"'max' for instance c6i\.large, found latency_p95 max 20 ms on local"):
        parse_limits(str(path), instance="c6i.large")
