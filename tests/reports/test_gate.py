from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import msgspec
import pytest
from liftgate.core.errors import InputError
from liftgate.core.verdict import Finding, Outcome, judge
from liftgate.profile.result import Comparison
from liftgate.reports import gate_page
from liftgate.reports.annotations import workflow_commands
from liftgate.reports.gate import GateResult, Undecided
from liftgate.reports.junit import junit

from .conftest import candidate, compare, finding, ref

FAILS = finding(
    Outcome.FAIL, "latency_p95 max_regress 5% on local", "latency_p95 ratio 1.467 [1.448, 1.486] > 1.05 x v1.0 on local (measured)"
)
OPEN = finding(
    Outcome.UNDECIDED, "latency_p99 max 20 ms on local", "latency_p99 19.2 ms [17.0, 22.1] against 20 ms: about 3.1 times the time"
)
SPOILT = finding(Outcome.INVALID, "latency_p50 max 9 ms on local", "latency_p50 cannot be trusted on local (measured): 4.2 % steal")
KEPT = finding(Outcome.PASS, "size max 32 MiB", "size 5.6 MiB <= 32 MiB")
WARNS = Finding(outcome=Outcome.FAIL, gate="memory max 64 MiB on local", reason="memory 80 MiB > 64 MiB", level="warn")
HOSTILE = '<img src=x onerror="1">&|`*@team\x00'


def gate(*findings: Finding, undecided: Undecided = "fail", name: str = "v1.1") -> GateResult:
    return GateResult(comparison=compare((candidate(ref(name, 100), *findings),)), undecided=undecided)


@pytest.mark.parametrize(
    ("findings", "undecided", "code"),
    [
        ((KEPT, WARNS), "fail", 0),
        ((KEPT, FAILS, OPEN), "fail", 1),
        ((KEPT, OPEN), "fail", 3),
        ((KEPT, OPEN), "warn", 0),
        ((SPOILT, OPEN), "warn", 4),
    ],
)
def test_the_exit_code_is_the_verdicts_and_undecided_may_only_warn(findings: tuple[Finding, ...], undecided: Undecided, code: int) -> None:
    assert gate(*findings, undecided=undecided).exit_code == code


def test_junit_has_a_test_per_gate_in_the_budgets_order() -> None:
    root = ET.fromstring(junit(gate(FAILS, OPEN, SPOILT, KEPT, WARNS)))
    cases = root.findall("testsuite/testcase")
    assert [c.get("name") for c in cases] == [f.gate for f in (FAILS, OPEN, SPOILT, KEPT, WARNS)]
    kinds = [next((e.tag for e in c if e.tag != "system-out"), None) for c in cases]
    assert kinds == ["failure", "skipped", "error", None, "skipped"]
    failure = cases[0].find("failure")
    assert failure is not None
    assert failure.get("message") == f"FAIL: {FAILS.reason}"
    warned = cases[4].find("skipped")
    assert warned is not None
    assert warned.get("message") == "FAIL (warning only): memory 80 MiB > 64 MiB"


def test_junit_counts_what_it_holds() -> None:
    root = ET.fromstring(junit(gate(FAILS, OPEN, SPOILT, KEPT, WARNS)))
    suite = root.find("testsuite")
    assert suite is not None
    assert [suite.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", "2"]
    assert [root.get(k) for k in ("tests", "failures", "errors", "skipped")] == ["5", "1", "1", None]  # junit-10.xsd: not on testsuites
    assert suite.get("timestamp") == "2026-03-04T10:12:44"
    assert {p.get("name"): p.get("value") for p in suite.iter("property")}["exit_code"] == "1"


def test_junit_survives_names_that_are_markup() -> None:
    root = ET.fromstring(junit(gate(finding(Outcome.FAIL, HOSTILE, HOSTILE), name=HOSTILE)))
    case = root.find("testsuite/testcase")
    assert case is not None
    assert case.get("name") == HOSTILE.replace("\x00", "\ufffd")


def test_annotations_are_escaped_as_the_runner_reads_them() -> None:
    odd = finding(Outcome.FAIL, "auc min 50%, for a:b", "first\nsecond 100%")
    found = workflow_commands(gate(odd))
    assert found == (
        "::error title=liftgate FAIL::v1.1 against v1.0: The only gate failed.",
        "::error title=FAIL auc min 50%25%2C for a%3Ab::first%0Asecond 100%25",
    )


def test_annotations_say_each_outcome_at_its_level() -> None:
    kinds = [line.split(" ", 1)[0] for line in workflow_commands(gate(KEPT, OPEN, WARNS, undecided="warn"))]
    assert kinds == ["::warning", "::warning", "::warning"]
    kinds = [line.split(" ", 1)[0] for line in workflow_commands(gate(KEPT, FAILS, OPEN, WARNS))]
    assert kinds == ["::error", "::error", "::error", "::warning"]
    assert workflow_commands(gate(KEPT)) == ("::notice title=liftgate PASS::v1.1 against v1.0: The only gate passed.",)


def test_annotations_stand_at_the_gates_of_the_budget() -> None:
    budget = 'version = 1\n\n[[gate]]\nmetric = "size"\n\n  [[gate]] # the slow one\nmetric = "latency_p95"\n'
    found = workflow_commands(gate(KEPT, FAILS), budget_file="ci/budget.toml", budget_text=budget)
    assert found[1].startswith("::error file=ci/budget.toml,line=6,title=FAIL latency_p95")
    assert "file=" not in workflow_commands(gate(FAILS), budget_file="ci/budget.toml", budget_text=budget)[1]  # another budget's text


def test_at_most_ten_annotations_of_a_kind_and_the_tenth_counts_the_rest() -> None:
    found = workflow_commands(gate(*(finding(Outcome.FAIL, f"gate {i}", "broken") for i in range(14))))
    assert len(found) == 10
    assert found[-1] == "::error title=liftgate::6 more like these: see the job's summary"


def test_a_comment_says_the_verdict_first_then_one_sentence_per_gate() -> None:
    lines = gate_page.comment(gate(KEPT, FAILS, OPEN, WARNS), key="ranker").splitlines()
    assert lines[0] == "<!-- liftgate-gate ranker -->"
    assert lines[1] == "### ❌ FAIL: v1.1 (against v1.0)"
    assert lines[3] == "1 of 3 gates failed. 1 warning besides."
    gates = [line for line in lines if line.startswith("- ") and "**" in line][:4]
    assert [g.split("**")[1] for g in gates] == ["FAIL", "FAIL", "UNDECIDED", "PASS"]
    assert "ratio 1.467 [1.448, 1.486] > 1.05 x v1.0 on local (measured)" in gates[0]
    assert any(line.startswith("- UNDECIDED: neither kept nor broken") for line in lines)


def test_what_to_do_is_said_for_what_happened_only() -> None:
    assert gate(KEPT, WARNS).advice() == ()
    assert [text.split(":")[0] for text in gate(OPEN, SPOILT).advice()] == ["INVALID", "UNDECIDED"]


def test_a_page_names_nobody_and_starts_no_markup() -> None:
    page = gate_page.comment(gate(finding(Outcome.FAIL, "g", HOSTILE), name=HOSTILE))
    assert "<img" not in page
    assert not re.search(r"(?<!\w)@team", page)


@pytest.mark.parametrize("limit", [gate_page.COMMENT_LIMIT, 6000, 4000, 900])
def test_a_long_page_is_cut_to_the_limit_and_says_so(limit: int) -> None:
    many = [
        finding(Outcome.PASS, f"ndcg@10 max_drop 1% for ünit {i}", "ndcg@10 ratio 1.001 [0.999, 1.003] >= 0.99 " * 8) for i in range(200)
    ]
    page = gate_page.comment(gate(*many, FAILS), limit=limit)
    assert len(page.encode()) <= limit
    assert page.startswith("<!-- liftgate-gate gate -->\n### ❌ FAIL")
    assert "Shortened to fit" in page
    assert "ratio 1.467" in page  # the gate that failed comes first
    assert page.count("<details>") == page.count("</details>")


def test_the_gates_left_out_are_counted() -> None:
    many = [finding(Outcome.PASS, f"gate {i}", "kept") for i in range(50)]
    page = gate_page.comment(gate(*many), limit=1000)
    shown = page.count("**PASS**")
    assert 0 < shown < 50
    assert f"{50 - shown} more gates and the tables are left out" in page


def test_a_page_with_folds_fits_when_folding_away_is_enough() -> None:
    result = gate(KEPT)
    whole, brief = gate_page.summary(result), gate_page.summary(result, limit=3000)
    assert "Shortened" not in whole
    assert "<details>" not in brief
    assert "segments, machine and command are left out" in brief


def test_without_room_for_the_verdict_nothing_is_written() -> None:
    assert gate_page.summary(gate(KEPT), limit=40) == ""


@pytest.mark.parametrize("key", ["", "a b", "x-->", "a--b", "é", "k" * 101])
def test_a_key_that_would_break_the_marker_is_refused(key: str) -> None:
    with pytest.raises(InputError, match="--comment-key"):
        gate_page.marker(key)


def test_a_marker_is_found_only_where_a_comment_starts() -> None:
    page = gate_page.comment(gate(KEPT), key="team/ranker")
    assert gate_page.marker_of(page) == "<!-- liftgate-gate team/ranker -->"
    assert gate_page.marker_of("> " + page) is None


def test_generated_requests_are_said_right_under_the_verdict(generated_comparison: Comparison) -> None:
    judged = msgspec.structs.replace(generated_comparison.candidates[0], verdict=judge([KEPT]))
    page = gate_page.summary(GateResult(comparison=msgspec.structs.replace(generated_comparison, candidates=(judged,))))
    said = [line for line in page.splitlines() if line]
    assert said[0].startswith("### ✅ PASS")
    assert said[3].startswith("> **The requests were generated, not recorded")


def test_open_loop_and_disturbed_machines_are_said() -> None:
    whole = gate(KEPT).comparison
    shown = msgspec.structs.replace(whole.instances[0], rate_per_s=200.0, unsteady=("other processes held the CPU 9.0% of the time",))
    page = gate_page.summary(GateResult(comparison=msgspec.structs.replace(whole, instances=(shown,))))
    assert "local@200/s (measured), latency since arrival at 200 requests/s with 95 % intervals" in page
    assert "only ratios on local@200/s are to be trusted, not milliseconds: other processes held the CPU" in page


def test_the_command_that_repeats_a_gate_is_a_gate_with_its_exit_code() -> None:
    result = gate(KEPT)
    comparison = msgspec.structs.replace(
        result.comparison, command="profile compare v1.0 'my model' --budget b.toml --instance m5.large --metric auc --seed 0"
    )
    judged = msgspec.structs.replace(result, comparison=comparison, undecided="warn")
    assert judged.command == "profile gate v1.0 'my model' --budget b.toml --seed 0 --undecided warn"
    assert msgspec.structs.replace(judged, comparison=msgspec.structs.replace(comparison, command="")).command == ""
