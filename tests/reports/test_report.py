from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from liftgate.cli import app
from liftgate.core.errors import InputError
from liftgate.experiment.result import Analysis
from liftgate.profile.result import Comparison
from liftgate.reports import report as room
from liftgate.reports.curves import read_curves, thin
from liftgate.reports.report import from_json, read_run, report, to_json
from liftgate.reports.result import Report, Story
from typer.testing import CliRunner

Folder = Callable[..., Path]
OUTPUTS = ["report.html", "report.json", "report.md"]


def outputs(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if "report" in p.name)


def test_three_files_are_written_beside_the_results(sampled_folder: Path) -> None:
    written = report(sampled_folder)
    assert outputs(sampled_folder) == OUTPUTS
    assert written == read_run(sampled_folder)


def test_out_leaves_the_results_alone(sampled_folder: Path, tmp_path: Path) -> None:
    report(str(sampled_folder), out=tmp_path / "new" / "place")
    assert outputs(tmp_path / "new" / "place") == OUTPUTS
    assert outputs(sampled_folder) == []


def test_the_json_reads_back_as_the_same_report(sampled_folder: Path) -> None:
    written = report(sampled_folder)
    body = (sampled_folder / "report.json").read_bytes()
    assert from_json(body) == written
    raw = msgspec.json.decode(body)
    assert (raw["schema_version"], raw["kind"]) == (1, "report")
    assert raw["comparison"]["kind"] == "comparison" and raw["analysis"]["kind"] == "analysis"


def test_a_report_of_another_version_is_refused(full_report: Report) -> None:
    newer = to_json(full_report).replace(b'"schema_version": 1', b'"schema_version": 2', 1)
    with pytest.raises(InputError, match=r"report\.json: is not a report of version 1"):
        from_json(newer)


def test_same_results_same_bytes(sampled_folder: Path, tmp_path: Path) -> None:
    report(sampled_folder, out=tmp_path / "a")
    report(sampled_folder, out=tmp_path / "b")
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in OUTPUTS)


def test_either_result_is_enough(run_folder: Folder, analysis: Analysis) -> None:
    read = report(run_folder(analysis=analysis))
    assert (read.comparison, read.analysis) == (None, analysis)


def test_a_folder_without_results_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected comparison\.json or analysis\.json, found neither of them; make one with"):
        report(tmp_path)
    with pytest.raises(InputError, match="expected a folder of results, found nothing"):
        report(tmp_path / "missing")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"schema_version": 1, "kind": "compar', "is damaged or not JSON"),
        (b"\xff\xfe\x00", "is damaged or not JSON"),
        (b"", "is damaged or not JSON"),
        (b"[]", "is damaged or not JSON"),
        (b'{"schema_version": 2, "kind": "comparison"}', "expected schema_version 1, found version 2"),
        (b'{"schema_version": 1, "kind": "analysis"}', "expected kind 'comparison', found 'analysis'"),
        (b'{"schema_version": 1, "kind": "comparison"}', "is not a comparison of version 1"),
    ],
)
def test_a_damaged_or_foreign_result_is_named_and_nothing_is_written(body: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_bytes(body)
    with pytest.raises(InputError, match=r"comparison\.json: ") as caught:
        report(tmp_path)
    assert message in str(caught.value)
    assert outputs(tmp_path) == []


def test_an_unknown_key_in_a_story_is_refused(run_folder: Folder, analysis: Analysis) -> None:
    folder = run_folder(analysis=analysis)
    (folder / "story.json").write_text('{"title": "t", "paragraf": []}')
    with pytest.raises(InputError, match=r"story\.json: is not a story of version 1 .*paragraf"):
        report(folder)


def test_a_rendering_that_fails_leaves_no_half_report(sampled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Report) -> str:
        raise RuntimeError("no")

    monkeypatch.setattr(room, "markdown", broken)
    with pytest.raises(RuntimeError):
        report(sampled_folder)
    assert outputs(sampled_folder) == []


def test_a_curve_keeps_both_ends_and_the_right_shares() -> None:
    curve = thin("local", "v1.0", np.arange(1.0, 10_001.0)[::-1])
    assert (curve.samples, curve.ms[0], curve.ms[-1], curve.share[-1]) == (10_000, 1.0, 10_000.0, 1.0)
    assert all(share == ms / 10_000 for ms, share in zip(curve.ms, curve.share, strict=True))
    assert len(curve.ms) < 210
    assert sum(share > 0.95 for share in curve.share) >= 40


def test_a_few_samples_are_all_kept() -> None:
    curve = thin("local", "m", np.array([3.0, 1.0, 2.0]))
    assert (curve.ms, curve.share) == ((1.0, 2.0, 3.0), (1 / 3, 2 / 3, 1.0))


def test_curves_are_per_instance_and_model(sampled_folder: Path, story_comparison: Comparison) -> None:
    found = {(c.instance, c.model, c.samples) for c in read_run(sampled_folder).curves}
    names = ["v1.0", *(c.model.name for c in story_comparison.candidates)]
    assert found == {(instance, name, 400) for instance in ("local", "m5.large") for name in names}


def test_samples_of_one_instance_need_no_instance_column(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    pq.write_table(pa.table({"model": ["a", "a", "b"], "ns": [2_000_000, 1_000_000, 5_000_000]}), path)
    assert [(c.instance, c.model, c.ms) for c in read_curves(path, ("local",))] == [("local", "a", (1.0, 2.0)), ("local", "b", (5.0,))]
    with pytest.raises(InputError, match="expected a column 'instance'"):
        read_curves(path, ("local", "m5.large"))


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    path.write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match=r"samples\.parquet: is not a readable file of samples"):
        read_curves(path, ("local",))
    pq.write_table(pa.table({"model": ["a"], "seconds": [1.0]}), path)
    with pytest.raises(InputError, match="expected a column 'ns', found model, seconds"):
        read_curves(path, ("local",))


def test_the_command_says_each_verdict_and_where_the_report_is(sampled_folder: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(sampled_folder)])
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "FAIL v1.1 (against v1.0): 1 of 3 gates failed.",
        "PASS v1.1-int8 (against v1.0): Both gates passed. 1 warning besides.",
        "UNDECIDED v1.1-int8-pruned (against v1.0): 1 of 2 gates cannot be decided with this much data.",
        "FAIL v1.1 (live, experiment ranker-v1-1): The only gate failed.",
        *(str(sampled_folder / name) for name in ("report.html", "report.md", "report.json")),
    ]


def test_json_to_standard_output_is_the_report_and_nothing_else(run_folder: Folder, unjudged_comparison: Comparison) -> None:
    result = CliRunner().invoke(app, ["report", str(run_folder(comparison=unjudged_comparison)), "--json", "-"])
    assert result.exit_code == 0
    assert from_json(result.stdout.encode()).comparison == unjudged_comparison
    assert result.stderr.startswith("NOT JUDGED v1.1-int8 (against v1.0): No budget given: reported without judging.")


def test_a_bad_folder_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path}: expected comparison.json or analysis.json")
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_story_gives_the_title_else_what_was_compared(story_comparison: Comparison, analysis: Analysis, story: Story) -> None:
    assert Report(comparison=story_comparison, story=story).title == story.title
    assert Report(comparison=story_comparison, analysis=analysis).title == "v1.1, v1.1-int8, v1.1-int8-pruned against v1.0"
    assert Report(analysis=analysis).title == "Experiment ranker-v1-1"
