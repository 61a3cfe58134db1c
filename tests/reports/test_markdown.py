from __future__ import annotations

import re

import msgspec
from liftgate.core.verdict import Finding, Outcome, Verdict
from liftgate.experiment.result import Analysis
from liftgate.profile.result import Comparison
from liftgate.reports.markdown import MARKER, escape, markdown
from liftgate.reports.result import Report, Story


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line.strip().strip("|"))


def test_every_table_has_a_rule_and_equal_rows(full_report: Report) -> None:
    lines = markdown(full_report).splitlines()
    tables = [i for i, line in enumerate(lines) if re.fullmatch(r"\|(:?-+:?\|)+", line)]
    assert len(tables) == 12  # three per instance, two metrics, three live, one of models
    for rule in tables:
        assert lines[rule - 2] == ""  # a table needs a blank line before it
        width = len(cells(lines[rule - 1]))
        end = next(i for i in range(rule, len(lines)) if not lines[i])
        assert end > rule + 1
        assert {len(cells(line)) for line in lines[rule - 1 : end]} == {width}


def test_it_opens_with_its_marker_title_and_verdict(full_report: Report) -> None:
    lines = [line for line in markdown(full_report).splitlines() if line]
    assert lines[:6] == [
        MARKER,
        "# Did fine-tuning on power users earn its place?",
        "## Verdict",
        "1 of 3 treatments passed: v1.1-int8.",
        "### ❌ FAIL: v1.1 (against v1.0)",
        "1 of 3 gates failed.",
    ]
    assert lines[6] == "- ❌ **FAIL** latency_p95: p95 ratio 1.467 [1.448, 1.486] > 1.05 on m5.large (emulated)"


def test_a_name_cannot_break_a_table_or_start_markup(story_comparison: Comparison) -> None:
    evil = "a|b\n<img src=x> `c` *d* [e](f)"
    swapped = msgspec.json.encode(story_comparison).replace(b'"v1.1"', msgspec.json.encode(evil))
    text = markdown(Report(comparison=msgspec.json.decode(swapped, type=Comparison)))
    assert r"a\|b &lt;img src=x> \`c\` \*d\* [e\](f)" in text
    assert "<img" not in text


def test_reasons_keep_their_brackets_and_metric_names_their_underscores() -> None:
    assert escape("latency_p95 23.1 ms [22.6, 23.9] > 20 ms") == "latency_p95 23.1 ms [22.6, 23.9] > 20 ms"
    assert escape("_quiet_ # not a heading") == r"\_quiet\_ # not a heading"
    assert escape("# heading") == r"\# heading"


def test_sections_match_the_page(full_report: Report) -> None:
    titles = [line.removeprefix("## ") for line in markdown(full_report).splitlines() if line.startswith("## ")]
    assert titles == [
        "Verdict",
        "Context",
        "Models side by side",
        "Segments",
        "Live experiment",
        "Where the numbers come from",
        "How to reproduce",
        "Limits and notes",
    ]  # sections of nothing but charts are left out


def test_a_report_that_is_too_long_says_so_and_stays_under_the_limit(full_report: Report) -> None:
    whole = markdown(full_report)
    brief = markdown(full_report, limit=len(whole) - 1)
    assert "<details>" in whole and "<details>" not in brief
    assert brief.rstrip().endswith("_Shortened: the whole report is in `report.html`._")
    for limit in range(400, len(brief), 250):
        cut = markdown(full_report, limit=limit)
        assert len(cut) <= limit
        assert cut.count("```") % 2 == 0
        assert cut.rstrip().endswith("_Shortened: the whole report is in `report.html`._")


def test_unknown_numbers_say_unknown(unknown_comparison: Comparison) -> None:
    row = next(line for line in markdown(Report(comparison=unknown_comparison)).splitlines() if line.startswith("| v1.1-int8 |"))
    expected = [
        "UNDECIDED",
        "101 [99, 103]",
        "141 [unknown]",
        "unknown",
        "0.940 [unknown, 1.020]",
        "unknown",
        "unknown",
        "5.6 MiB (unknown)",
    ]
    assert [c.strip() for c in cells(row)][1:] == expected


def test_an_experiment_alone_is_a_report(analysis: Analysis) -> None:
    text = markdown(Report(analysis=analysis))
    assert "# Experiment ranker-v1-1" in text
    assert "### ❌ FAIL: v1.1 (live, experiment ranker-v1-1)" in text
    assert "| everyone | treatment | \u22125.0 % [\u22129.8 %, \u22120.2 %] |" in text


def test_warnings_are_counted_apart_from_gates(story_comparison: Comparison) -> None:
    text = markdown(Report(comparison=story_comparison))
    assert "Both gates passed. 1 warning besides." in text
    assert "- 🟡 **UNDECIDED** (warning) ndcg@10: ratio 0.979 [0.955, 1.003]" in text


def test_a_verdict_of_warnings_only_does_not_claim_that_gates_passed(story_comparison: Comparison) -> None:
    soft = Finding(outcome=Outcome.FAIL, gate="size", reason="15 MiB > 10 MiB", level="warn")
    first = msgspec.structs.replace(story_comparison.candidates[0], verdict=Verdict(outcome=Outcome.PASS, findings=(soft,)))
    text = markdown(Report(comparison=msgspec.structs.replace(story_comparison, candidates=(first,)), story=Story(title="t")))
    assert "No gate can fail it. 1 warning besides." in text
