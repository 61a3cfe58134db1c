from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from liftgate.core.store import Store
from liftgate.core.verdict import Outcome
from liftgate.profile.testing.in_process import Watch
from liftgate.profile.testing.latency_mark import Latency, read_mark  # numpy is there before inner runs, which forget what they import

pytest_plugins = ["pytester"]

# A clock that only the measured work moves, on a machine that nothing disturbs.
CONFTEST = """
import random
import pytest
from liftgate.profile.health import Counters
from liftgate.profile.testing.in_process import Watch

class Clock:
    now = 0

CLOCK = Clock()

def counters(throttled=0):
    return Counters(throttled=throttled, stolen_ticks=0, total_ticks=10**9, swapped_pages=0)

@pytest.fixture(scope="session")
def liftgate_watch():
    return Watch(clock=lambda: CLOCK.now, counters=counters, scheduled=lambda: None)

@pytest.fixture
def work():
    noise = random.Random(4)
    def make(ms):
        def call():
            CLOCK.now += round(ms * 1e6 * noise.lognormvariate(0, 0.05))
        return call
    return make
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest(CONFTEST)
    pytester.makeini(
        "[pytest]\naddopts = --strict-markers -p no:cacheprovider -p no:hypothesispytest -p no:timeout\nfilterwarnings =\n    error\n"
        # As in pyproject.toml: only an editable install lists the root's own `__main__.py`.
        "    ignore:Module already imported so cannot be rewritten; __main__:pytest.PytestAssertRewriteWarning\n"
    )
    return pytester


def run(project: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    project.makepyfile("import pytest\nbudget = pytest.mark.latency_budget\n" + body)
    return project.runpytest_inprocess("-rA", *options)


def text(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def test_a_budget_that_is_kept_passes_with_one_line(project: pytest.Pytester) -> None:
    done = run(project, '@budget(p50="2 ms", p95="2 ms")\ndef test_it(latency, work):\n    latency(work(1.0))\n')
    done.assert_outcomes(passed=1)
    done.stdout.re_match_lines(
        [r"=+ latency budgets =+", r"PASS +test_.*::test_it: latency_p50 (0\.99\d|1\.00\d?) ms \[.*\] <= 2 ms on local \(measured\)"]
    )


def test_a_budget_that_is_broken_fails_with_the_gates_sentence(project: pytest.Pytester) -> None:
    done = run(project, '@budget(p50="900 us")\ndef test_it(latency, work):\n    latency(work(1.0))\n')
    done.assert_outcomes(failed=1)
    done.stdout.re_match_lines([r"FAIL latency_p50 (0\.99\d|1\.00\d?) ms \[\S+ \S+\] > 900 us on local \(measured\)"])
    assert "pytest_plugin.py" not in text(done)


@pytest.mark.parametrize(("ratio", "limit", "outcome"), [(1.1, "5%", "failed"), (1.0, "5%", "passed"), (1.02, "5%", "passed")])
def test_two_callables_are_compared_in_turns(project: pytest.Pytester, ratio: float, limit: str, outcome: str) -> None:
    body = f'@budget(max_regress="{limit}")\ndef test_it(latency, work):\n    latency.compare(work(1.0), work({ratio}))\n'
    done = run(project, body)
    done.assert_outcomes(**{outcome: 1})
    assert "x base on local" in text(done)


def test_a_relative_limit_may_name_its_quantile(project: pytest.Pytester) -> None:
    body = '@budget(max_regress={"p95": "10%"})\ndef test_it(latency, work):\n    latency.compare(work(1.0), work(1.0))\n'
    done = run(project, body)
    done.assert_outcomes(passed=1)
    assert "latency_p95 ratio" in text(done)


UNDECIDED = "def test_it(latency, work):\n    latency.compare(work(1.0), work(1.05))\n"


@pytest.mark.parametrize(
    ("mark", "options", "outcome"),
    [
        ("", (), "skipped"),
        (', undecided="fail"', (), "failed"),
        (', undecided="pass"', (), "passed"),
        ("", ("--liftgate-strict",), "failed"),
        (', undecided="pass"', ("--liftgate-strict",), "passed"),
        ("", ("-o", "liftgate_undecided=fail"), "failed"),
    ],
)
def test_what_undecided_does_is_chosen(project: pytest.Pytester, mark: str, options: tuple[str, ...], outcome: str) -> None:
    done = run(project, f'@budget(max_regress="5%"{mark})\n{UNDECIDED}', *options)
    done.assert_outcomes(**{outcome: 1})
    assert "against 1.05 x base on local (measured)" in text(done)


@pytest.mark.parametrize(("mark", "outcome"), [("", "skipped"), (', invalid="fail"', "failed")])
def test_a_throttled_machine_judges_nothing_and_says_why(project: pytest.Pytester, mark: str, outcome: str) -> None:
    throttled = "import itertools\n_count = itertools.count()\n"
    project.makeconftest(CONFTEST.replace("counters=counters", "counters=lambda: counters(next(_count))") + throttled)
    done = run(project, f'@budget(p50="2 ms"{mark})\ndef test_it(latency, work):\n    latency(work(1.0))\n', "-rs")
    done.assert_outcomes(**{outcome: 1})
    if outcome == "skipped":
        done.stdout.re_match_lines([r"SKIPPED \[1\] test_[^/]*\.py:\d+: INVALID"])
    assert "the container's CPU quota stopped the process" in text(done)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ('max_regres="5%"', "latency_budget: unknown key 'max_regres'; did you mean 'max_regress'?"),
        ('p50="5"', "latency_budget: p50: expected a number with a unit"),
        ("p50=5", "latency_budget: Expected `str | null`, got `int` - at `$.p50`"),
        ("seconds=3", "expected one of p50, p95, p99 and max_regress, found no limit"),
        ('"5 ms"', "expected named limits, found '5 ms'"),
        ('p50="5 ms", undecided="maybe"', "undecided"),
        ('max_regress={"p51": "5%"}', "max_regress"),
        ('max_regress="5 ms"', "latency_budget: max_regress"),
    ],
)
def test_a_mistake_in_a_mark_is_an_error_before_the_test_runs(project: pytest.Pytester, mark: str, words: str) -> None:
    done = run(project, f"@budget({mark})\ndef test_it(latency):\n    raise AssertionError('ran')\n")
    done.assert_outcomes(errors=1)
    assert words in text(done)
    assert "AssertionError" not in text(done)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('@budget(p50="5 ms")\ndef test_it():\n    pass\n', "has a latency budget and measured nothing; call the fixture"),
        ('@budget(p50="5 ms")\ndef test_it(latency):\n    pass\n', "has a latency budget and measured nothing"),
        ('@budget(max_regress="5%")\ndef test_it(latency, work):\n    latency(work(1))\n', "max_regress was held against nothing"),
        (
            '@budget(p50="5 ms")\ndef test_it(latency, work):\n    latency(work(0.0001))\n',
            "expected a call of 1 µs or more, found about 100 ns",
        ),
        ("async def work():\n    pass\ndef test_it(latency):\n    latency(work)\n", "found a coroutine function"),
        ("def test_it(latency):\n    latency(3)\n", "expected a callable without arguments, found a int"),
    ],
)
def test_a_budget_that_nothing_is_held_to_fails(project: pytest.Pytester, body: str, words: str) -> None:
    done = run(project, body)
    done.assert_outcomes(failed=1)
    assert words in text(done)
    assert "in_process.py" not in text(done)


def test_what_a_callable_raises_is_the_tests_failure(project: pytest.Pytester) -> None:
    done = run(project, "def boom():\n    raise ZeroDivisionError('mine')\ndef test_it(latency):\n    latency(boom)\n")
    done.assert_outcomes(failed=1)
    assert "ZeroDivisionError: mine" in text(done)


def test_the_closest_mark_has_the_last_word(project: pytest.Pytester) -> None:
    test = '    @budget(p50="2 ms")\n    def test_it(self, latency, work):\n        latency(work(1.0))\n'
    body = f'@budget(p50="1 us", seconds=1)\nclass TestAll:\n{test}'
    run(project, body).assert_outcomes(passed=1)


def test_switched_off_callables_run_once_and_nothing_is_judged(project: pytest.Pytester) -> None:
    body = (
        '@budget(p50="1 us")\ndef test_it(latency):\n    calls = []\n    found = latency(lambda: calls.append(1))\n'
        "    assert (calls, found.quantiles_ms) == ([1], {})\n"
        '@budget(p50="1 us")\ndef test_nothing():\n    pass\n'
    )
    done = run(project, body, "--liftgate-off")
    done.assert_outcomes(passed=2)
    assert "latency budgets" not in text(done)


def test_without_a_mark_the_numbers_are_the_tests_own(project: pytest.Pytester) -> None:
    body = (
        "def test_it(liftgate_latency, latency, work):\n    assert latency is liftgate_latency\n"
        "    found = latency(work(1.0), name='rank')\n"
        "    assert found.name == 'rank'\n    assert 0.9 < found.quantiles_ms['p50'].value < 1.1\n    assert found.ratios == {}\n"
    )
    run(project, body).assert_outcomes(passed=1)


def test_a_test_that_fails_by_itself_is_not_judged(project: pytest.Pytester) -> None:
    done = run(project, '@budget(p50="1 us")\ndef test_it(latency, work):\n    latency(work(1.0))\n    assert False\n')
    done.assert_outcomes(failed=1)
    assert "latency budgets" not in text(done)


def test_results_are_properties_of_the_junit_report(project: pytest.Pytester) -> None:
    run(project, '@budget(p50="2 ms")\ndef test_it(latency, work):\n    latency(work(1.0))\n', "--junit-xml=found.xml")
    found = ET.parse(project.path / "found.xml").find(".//testcase/properties/property")
    assert found is not None
    assert found.get("name") == "liftgate latency_p50 max 2 ms on local"
    assert str(found.get("value")).startswith("PASS latency_p50 ")


def test_a_default_of_the_project_is_checked(project: pytest.Pytester) -> None:
    done = run(project, "def test_it():\n    pass\n", "-o", "liftgate_invalid=pass")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*liftgate_invalid: expected one of skip, fail, found 'pass'*"])


def test_the_plugin_is_installed_and_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(pytestconfig):\n    assert pytestconfig.pluginmanager.hasplugin('liftgate')\n"
        "    heavy = {'numpy', 'scipy', 'msgspec', 'pyarrow', 'onnxruntime', 'torch'} & set(sys.modules)\n    assert heavy == set()\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--strict-markers", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_model_is_measured_in_processes_of_its_own(make_model: Callable[..., object], store: Store) -> None:
    for name in ("v1.0", "v1.1"):
        make_model(name)
    mark = read_mark([], {"p50": "10 s", "max_regress": "900%", "seconds": 0.2})
    latency = Latency(mark, Watch(), measuring=True)
    found = latency.model("v1.1", against="v1.0", store=store, launches=3)
    assert (found.name, set(found.quantiles_ms), set(found.ratios)) == ("v1.1", {"p50", "p95", "p99"}, {"p50", "p95", "p99"})
    verdict = latency.verdict()
    assert verdict is not None
    assert [f.gate for f in verdict.findings] == ["latency_p50 max 10 s on local", "latency_p50 max_regress 900% on local"]
    assert Outcome.FAIL not in {f.outcome for f in verdict.findings}
