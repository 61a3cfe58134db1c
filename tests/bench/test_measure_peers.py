from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from liftgate.bench.measure.peers.pair import HEADING, Pair, rows
from liftgate.bench.measure.peers.pytest_benchmark import RULES, regressions

SAID = """
Performance has regressed:
\ttest_request (0001_base) - Field 'min' has failed PercentageRegressionCheck: 97.713083437 > 5.000000000
\ttest_request (0001_base) - Field 'median' has failed PercentageRegressionCheck: 60.261420873 > 5.000000000
"""


def test_alarms_are_the_fields_that_pytest_benchmark_names() -> None:
    assert regressions(SAID) == pytest.approx({"min": 97.713083437, "median": 60.261420873})
    assert regressions("1 passed in 2.01s") == {}


def test_rows_have_the_share_of_alarms_with_its_exact_interval() -> None:
    pair = Pair(model=Path("m"), feeds=Path("f"), folder=Path(), delay_share=0.05, seconds=20.0, cpu=0)
    found = rows("pytest-benchmark", RULES[:2], Counter({"min:2%": 3}), pair=pair, repeats=10, beside="cpu")
    # Clopper-Pearson for 3 of 10: 0.0667 and 0.6525; for 0 of 10 the upper bound is 1 - 0.025^(1/10) = 0.3085.
    assert found == [
        "| pytest-benchmark `min:2%` | +5% | busy other core | 3 | 10 | 30% [7%, 65%] |",
        "| pytest-benchmark `min:5%` | +5% | busy other core | 0 | 10 | 0% [0%, 31%] |",
    ]
    assert {line.count("|") for line in (*HEADING, *found)} == {7}
