"""The pytest plugin `liftgate`: `@pytest.mark.latency_budget(p95="20 ms")` and the fixture `latency`.

Nothing but pytest is imported until a test has the mark or asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ...core.verdict import Verdict
    from .in_process import Watch
    from .latency_mark import Latency, LatencyMark

MARK = "latency_budget"
_PROPERTY = "liftgate "
_mark_key = pytest.StashKey["LatencyMark"]()
_latency_key = pytest.StashKey["Latency"]()
_HELP = (
    "latency_budget(p50=..., p95=..., p99=..., max_regress=..., seconds=5, alpha=0.05, undecided='skip', invalid='skip', seed=0): "
    "what the test measures with the fixture `latency` must keep to"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two switches for a run, two defaults for a project."""
    group = parser.getgroup("liftgate", "latency budgets")
    group.addoption("--liftgate-off", action="store_true", help="measure nothing: callables run once and budgets are not judged")
    group.addoption("--liftgate-strict", action="store_true", help="UNDECIDED and INVALID fail a test unless its mark says otherwise")
    parser.addini("liftgate_undecided", "what UNDECIDED does to a test: skip (default), fail or pass", default="skip")
    parser.addini("liftgate_invalid", "what INVALID does to a test: skip (default) or fail", default="skip")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known and check the project's defaults."""
    config.addinivalue_line("markers", _HELP)
    for name, known in (("liftgate_undecided", ("skip", "fail", "pass")), ("liftgate_invalid", ("skip", "fail"))):
        if config.getini(name) not in known:
            raise pytest.UsageError(f"{name}: expected one of {', '.join(known)}, found {config.getini(name)!r}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Read the marks of a test, the closest one last, before any fixture runs; a test that is run again starts without findings."""
    item.user_properties[:] = [(name, value) for name, value in item.user_properties if not name.startswith(_PROPERTY)]
    marks = list(item.iter_markers(MARK))
    if not marks:
        return
    from ...core.errors import LiftgateError  # noqa: PLC0415 - tests without budgets must not wait for it
    from .latency_mark import read_mark  # noqa: PLC0415

    named: dict[str, object] = {}
    for mark in reversed(marks):
        named |= mark.kwargs
    try:
        item.stash[_mark_key] = read_mark([value for mark in marks for value in mark.args], named)
        return
    except LiftgateError as error:
        told = str(error)
    pytest.fail(told, pytrace=False)


@pytest.fixture(scope="session")
def liftgate_watch() -> Watch:
    """The clock and the kernel's counters; a test of tests may put others in their place."""
    from .in_process import Watch  # noqa: PLC0415

    return Watch()


@pytest.fixture
def liftgate_latency(request: pytest.FixtureRequest, liftgate_watch: Watch) -> Latency:
    """`latency`, for projects that have a fixture of that name already."""
    from .latency_mark import Latency  # noqa: PLC0415

    item: pytest.Item = request.node
    measuring = not request.config.getoption("liftgate_off")
    item.stash[_latency_key] = Latency(item.stash.get(_mark_key, None), liftgate_watch, measuring=measuring)
    return item.stash[_latency_key]


@pytest.fixture
def latency(liftgate_latency: Latency) -> Latency:
    """Measure with `latency(call)`, `latency.compare(base, new)` or `latency.model(name)`; the test's budget is judged at its end."""
    return liftgate_latency


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Judge the budget of a test that went well."""
    result = yield
    mark = item.stash.get(_mark_key, None)
    if mark is None or item.config.getoption("liftgate_off"):
        return result
    from ...core.errors import LiftgateError  # noqa: PLC0415

    verdict, wrong = None, ""
    try:
        verdict = _measured(item, mark).verdict()
    except LiftgateError as error:
        wrong = str(error)
    if wrong:
        pytest.fail(wrong, pytrace=False)
    if verdict is not None:
        _settle(item, mark, verdict)
    return result


def _measured(item: pytest.Item, mark: LatencyMark) -> Latency:
    from .in_process import Watch  # noqa: PLC0415
    from .latency_mark import Latency  # noqa: PLC0415

    return item.stash.get(_latency_key, None) or Latency(mark, Watch(), measuring=True)


def _settle(item: pytest.Item, mark: LatencyMark, verdict: Verdict) -> None:
    """Record every finding, then let the test pass, fail or be skipped."""
    for finding in verdict.findings:
        item.user_properties.append((_PROPERTY + finding.gate, f"{finding.outcome.value} {finding.reason}"))
    told = "\n".join(f"{f.outcome.value} {f.reason}" for f in verdict.findings if f.outcome.value != "PASS")
    strict = "fail" if item.config.getoption("liftgate_strict") else None
    undecided = mark.undecided or strict or item.config.getini("liftgate_undecided")
    invalid = mark.invalid or strict or item.config.getini("liftgate_invalid")
    what = {"PASS": "pass", "FAIL": "fail", "UNDECIDED": undecided, "INVALID": invalid}[verdict.outcome.value]
    if what == "fail":
        pytest.fail(told, pytrace=False)
    if what == "skip":
        raise pytest.skip.Exception(told.replace("\n", "; "), _use_item_location=True)  # `-rs` then names the test, not this line


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per budget, read from the reports' properties so that it works with xdist."""
    lines = [
        (str(value).partition(" ")[0], report.nodeid, str(value))
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name.startswith(_PROPERTY)
    ]
    if not lines:
        return
    terminalreporter.section("latency budgets")
    for outcome, nodeid, text in lines:
        colour = {"PASS": "green", "FAIL": "red"}.get(outcome, "yellow")
        terminalreporter.write(f"{outcome:<9} ", **{colour: True})
        terminalreporter.write_line(f"{nodeid}: {text.partition(' ')[2]}")
