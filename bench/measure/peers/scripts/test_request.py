"""What a user of pytest-benchmark writes; run in the peers' environment, by its path."""

from __future__ import annotations

from collections.abc import Callable

from asked import call_of_environment  # type: ignore[import-not-found]  # beside this file, which is no part of a package there


def test_request(benchmark: Callable[[Callable[[], None]], None]) -> None:
    benchmark(call_of_environment())
