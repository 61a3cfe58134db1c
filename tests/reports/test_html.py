from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from liftgate.experiment.result import Analysis
from liftgate.profile.result import Comparison
from liftgate.reports.html import html
from liftgate.reports.report import report
from liftgate.reports.result import Report, Story

_VOID = {"meta", "link", "br"}
_LOADING = {"src", "srcset", "data", "poster", "action", "xlink:href", "background"}


class Page(HTMLParser):
    """What a reader sees of a page and what a browser would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.text: list[str] = []
        self.headings: list[str] = []
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.anchors: list[str] = []
        self.scripts = 0
        self.rows: list[list[str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in _LOADING or (name == "href" and tag != "a"):
                self.loads.append(value or "")
            elif name.startswith("on"):
                self.handlers.append(name)
            elif name == "id":
                self.ids.append(value or "")
            elif name == "href":
                self.anchors.append(value or "")
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if not words or {"script", "style"} & set(self.open) or self.open[-1] == "title":
            return
        self.text.append(words)
        if self.open[-1] == "h2":
            self.headings.append(words)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {words}".strip()

    @property
    def words(self) -> str:
        return " ".join(self.text)

    def row(self, *starts: str) -> list[str]:
        return next(row for row in self.rows if row[: len(starts)] == list(starts))


def test_the_verdict_comes_first_and_everything_else_in_order(sampled_folder: Path) -> None:
    report(sampled_folder)
    page = Page((sampled_folder / "report.html").read_text())
    assert page.headings == [
        "Verdict",
        "Context",
        "Models side by side",
        "Accuracy against latency",
        "Segments",
        "Round by round",
        "Distribution of latencies",
        "Live experiment",
        "Where the numbers come from",
        "How to reproduce",
        "Limits and notes",
    ]


def test_tags_nest_and_every_link_leads_somewhere_on_the_page(full_report: Report) -> None:
    page = Page(html(full_report))
    assert (page.open, page.misnested) == ([], [])
    assert len(page.ids) == len(set(page.ids))
    assert {a.removeprefix("#") for a in page.anchors} <= set(page.ids)
    assert page.anchors


def test_nothing_is_loaded_from_anywhere(sampled_folder: Path) -> None:
    report(sampled_folder)
    source = (sampled_folder / "report.html").read_text()
    page = Page(source)
    assert page.loads == ["data:,"]  # an empty icon, so that a browser does not ask a server for one
    assert set(re.findall(r"https?://[^\"'\s<)]+", source)) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", source)


def test_the_page_is_small(sampled_folder: Path) -> None:
    report(sampled_folder)
    assert (sampled_folder / "report.html").stat().st_size < 400_000
    assert len((Path(__file__).parents[2] / "reports/templates/page.js").read_bytes()) < 10_000


def test_a_model_named_like_a_script_does_not_run(story_comparison: Comparison) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
    first = story_comparison.candidates[0]
    renamed = msgspec.structs.replace(first, model=msgspec.structs.replace(first.model, name=evil))
    swapped = msgspec.json.encode(story_comparison).replace(b'"v1.1"', msgspec.json.encode(evil))
    comparison = msgspec.json.decode(swapped, type=Comparison)
    assert comparison.candidates[0].model == renamed.model
    page = Page(html(Report(comparison=comparison, story=Story(title=evil, paragraphs=(evil,)))))
    assert (page.scripts, page.handlers, page.loads) == (1, [], ["data:,"])
    assert evil in page.words
    assert (page.open, page.misnested) == ([], [])


def test_every_gate_has_its_outcome_and_reason(full_report: Report) -> None:
    words = Page(html(full_report)).words
    assert full_report.comparison is not None and full_report.analysis is not None
    verdicts = [c.verdict for c in full_report.comparison.candidates] + [full_report.analysis.verdict]
    for verdict in verdicts:
        assert verdict is not None
        for finding in verdict.findings:
            assert finding.reason in words


def test_the_summary_has_one_row_per_model_with_intervals(story_comparison: Comparison) -> None:
    page = Page(html(Report(comparison=story_comparison)))
    ratios = ["p95 / control", "ndcg@10 / control", "auc / control"]
    assert page.row("Model", "Verdict") == ["Model", "Verdict", "p50 ms", "p95 ms", "p99 ms", *ratios, "Size (memory)"]
    found = page.row("v1.1-int8", "PASS", "100 [99, 101]")
    assert found[3:7] == ["141 [138, 144]", "171 [164, 178]", "0.940 [0.928, 0.952]", "1.048 [1.036, 1.060]"]
    assert page.row("v1.0")[5:] == ["control", "control", "control", "6.1 MiB (92 MiB)"]


def test_rows_of_a_table_are_equally_long(full_report: Report) -> None:
    source = html(full_report)
    for table in re.findall(r"<table>.*?</table>", source, flags=re.S):
        assert len({len(row) for row in Page(table).rows}) == 1


def test_segments_say_everyone_first_and_how_many_users(story_comparison: Comparison) -> None:
    page = Page(html(Report(comparison=story_comparison)))
    segments = [row[:3] for row in page.rows if len(row) == 7 and row[1] == "v1.1-int8-pruned"]
    assert segments[:3] == [
        ["everyone", "v1.1-int8-pruned", "412"],
        ["power", "v1.1-int8-pruned", "96"],
        ["casual", "v1.1-int8-pruned", "316"],
    ]


def test_instances_say_whether_they_were_measured_or_emulated(story_comparison: Comparison) -> None:
    words = Page(html(Report(comparison=story_comparison))).words
    assert "local measured" in words and "m5.large emulated" in words
    assert "m5.large is imitated on another machine" in words


def test_without_a_budget_nothing_is_judged(unjudged_comparison: Comparison) -> None:
    page = Page(html(Report(comparison=unjudged_comparison)))
    assert "NOT JUDGED v1.1-int8 against v1.0 No budget given: reported without judging." in page.words
    assert page.row("v1.1-int8", "not judged")[2] == "100 [99, 101]"
    assert "PASS" not in page.words


def test_generated_requests_are_announced_before_the_verdict(generated_comparison: Comparison) -> None:
    words = Page(html(Report(comparison=generated_comparison))).words
    assert words.index("The requests were generated, not recorded (from the signature, seed 0)") < words.index("NOT JUDGED")
    assert "ranking quality is unknown" in words


def test_generated_data_is_announced_before_the_verdict(story_comparison: Comparison, story: Story) -> None:
    made = msgspec.structs.replace(story, generated=True, data="A generator with Zipf popularity, seed 0.")
    words = Page(html(Report(comparison=story_comparison, story=made))).words
    banner = "The data is generated, not recorded from real users. A generator with Zipf popularity, seed 0."
    assert words.index(banner) < words.index("v1.1 against v1.0")


def test_an_invalid_measurement_says_why_at_the_top_and_colours_no_latency(invalid_comparison: Comparison) -> None:
    source = html(Report(comparison=invalid_comparison))
    words = Page(source).words
    assert words.index("Latency on local cannot be trusted: CPU time stolen by the host: 4.2 % > 1 %.") < words.index("INVALID")
    assert '<span class="cell good">0.940</span>' not in source
    assert '<span class="cell ">0.940</span>' in source


def test_unknown_numbers_say_unknown(unknown_comparison: Comparison) -> None:
    page = Page(html(Report(comparison=unknown_comparison)))
    row = page.row("v1.1-int8", "UNDECIDED", "101 [99, 103]")
    assert row[3:] == ["141 [unknown]", "unknown", "0.940 [unknown, 1.020]", "unknown", "unknown", "5.6 MiB (unknown)"]
    assert page.row("v1.1-int8", "unknown", "unknown")[0] == "v1.1-int8"  # load and first request
    assert "Not drawn, because latency or ndcg@10 is unknown: v1.1-int8." in page.words
    assert not {"None", "nan"} & set(re.findall(r"\w+", page.words))


def test_long_context_is_folded_after_the_data_and_two_paragraphs(story: Story, analysis: Analysis) -> None:
    long = msgspec.structs.replace(story, paragraphs=("one", "two", "three", "four"))
    source = html(Report(analysis=analysis, story=long))
    before, after = source.split("More about the data and the method")
    assert before.index(story.data) < before.index("<p>one</p>") < before.index("<p>two</p>")
    assert after.index("<p>three</p>") < after.index("<p>four</p>")


def test_the_live_section_has_rates_ratio_check_and_users_needed(analysis: Analysis) -> None:
    page = Page(html(Report(analysis=analysis)))
    assert page.row("treatment", "v1.1") == [
        "treatment",
        "v1.1",
        "19,880",
        "59,640",
        "596,400",
        "11,332",
        "1.90 % [1.86 %, 1.93 %]",
        "154",
        "220",
    ]
    assert page.row("everyone", "treatment")[2:4] == ["\u22125.0 % [\u22129.8 %, \u22120.2 %]", "\u22120.100 [\u22120.196, \u22120.004]"]
    assert page.row("everyone", "treatment")[6] == "300,136"
    assert "Sample ratio: as configured (p = 0.548, threshold 0.001)." in page.words
    assert "events without exposure: 17" in page.words and "clicks outside the list" not in page.words


def test_a_sample_ratio_mismatch_is_an_alarm_at_the_top(analysis: Analysis) -> None:
    skewed = msgspec.structs.replace(analysis.sample_ratio, p_value=2e-7, ok=False)
    words = Page(html(Report(analysis=msgspec.structs.replace(analysis, sample_ratio=skewed)))).words
    assert words.index("Sample ratio MISMATCH (p = 2e-7, threshold 0.001)") < words.index("FAIL")


@pytest.mark.parametrize("name", ["story_comparison", "invalid_comparison", "unjudged_comparison", "unknown_comparison"])
def test_each_chart_has_a_title_for_readers_who_do_not_see_it(name: str, request: pytest.FixtureRequest) -> None:
    source = html(Report(comparison=request.getfixturevalue(name)))
    charts = re.findall(r"<svg [^>]*>.{0,40}", source)
    assert charts and all(re.search(r'role="img" aria-label="[^"]{8,}"', c) and "<title>" in c for c in charts)


def test_provenance_names_machine_tools_requests_and_lineage(full_report: Report) -> None:
    page = Page(html(full_report))
    for fact in (
        "AMD EPYC 7R13, 2 cores (1 thread per core), 23.4 GiB",
        "onnxruntime 1.23.2",
        "holdout.parquet: 1,830 requests of 412 users",
    ):
        assert fact in page.words
    made = "prune: kept 70 % of 2 hidden layers → dynamic-int8: 6 of 6 MatMul in int8, per channel"
    assert page.row("v1.1-int8-pruned")[0] == "v1.1-int8-pruned"
    assert made in page.words
    assert "profile compare v1.0 v1.1 v1.1-int8 --requests holdout.parquet" in page.words


def test_a_model_compared_with_itself_is_still_the_treatment(story_comparison: Comparison) -> None:
    body = msgspec.json.encode(story_comparison).decode()
    for candidate in story_comparison.candidates:
        body = body.replace(candidate.model.digest, story_comparison.control.digest)
    same = msgspec.json.decode(body, type=Comparison)
    assert html(Report(comparison=same)).count("control") == html(Report(comparison=story_comparison)).count("control")
