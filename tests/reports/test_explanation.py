from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from liftgate.core.errors import InputError
from liftgate.core.estimate import Estimate
from liftgate.profile.trace.explain_view import explanation_view
from liftgate.profile.trace.explanation import Change, Explanation, Explanations, Status, Step, Tail, TailPart, Unprofiled
from liftgate.reports.html import html
from liftgate.reports.markdown import markdown
from liftgate.reports.report import from_json, read_run, to_json
from rich.console import Console

from .conftest import CONTROL, MACHINE, REQUESTS, TREATMENT, est

Folder = Callable[..., Path]


def change(name: str, status: Status, before: float | None, after: float | None, *, stands_out: bool = False) -> Change:
    difference = (after or 0.0) - (before or 0.0)
    return Change(
        name=name,
        op="MatMul",
        status=status,
        nodes=(int(before is not None), int(after is not None)),
        control_us=before,
        treatment_us=after,
        difference_us=est(difference, 2.0),
        share=est(difference / 420, 0.01),
        stands_out=stands_out,
    )


@pytest.fixture
def explanation() -> Explanation:
    steps = (Step(name="tower/MatMul", start_us=180, end_us=580), Step(name="outside nodes", start_us=580, end_us=600))
    whole = {"control_us": est(180, 3), "treatment_us": est(600, 5), "difference_us": est(420, 4)}
    parts = (TailPart(name="MatMul", difference_us=est(900, 300)),)
    return Explanation(
        control=CONTROL,
        treatment=TREATMENT,
        instance="local",
        label="measured",
        standing="",
        threads=2,
        requests=REQUESTS,
        machine=MACHINE,
        tools={},
        seed=0,
        started_at="2026-11-25T10:00:00+00:00",
        launches=4,
        rounds=200,
        pairs=4000,
        resolution_us=(1.0, 1.0),
        direction="slower",
        conclusion="v1.1 is slower than v1.0 by 420.0 µs per request under the profiler: tower/MatMul (MatMul, new) 95 [94, 96] % of it",
        unprofiled=Unprofiled(**whole),
        nodes=(change("tower/MatMul", "new", None, 400.0, stands_out=True), change("old<b>", "removed", 9.0, None)),
        operators=(change("MatMul", "both", 20.0, 420.0, stands_out=True),),
        outside=change("outside nodes", "both", 60.0, 80.0),
        waterfall=steps,
        tail=Tail(requests=40, **whole, parts=parts, waterfall=steps),
        invalid=(),
        unsteady=(),
        notes=("a profiler slows models down: this explains, and no gate is judged by it",),
        **whole,
    )


@pytest.fixture
def explained(sampled_folder: Path, explanation: Explanation) -> Path:
    (sampled_folder / "explanation.json").write_bytes(msgspec.json.encode(Explanations(explanations=(explanation,))))
    return sampled_folder


def test_a_report_without_an_explanation_has_no_section_for_it(sampled_folder: Path) -> None:
    assert "Where the time goes" not in markdown(read_run(sampled_folder))


def test_a_report_names_the_operator_and_says_that_no_gate_reads_it(explained: Path) -> None:
    shown = markdown(read_run(explained))
    assert "## Where the time goes" in shown
    assert "tower/MatMul (MatMul, new) 95" in shown
    assert "| tower/MatMul (new) | MatMul | none | 400.0 | +400.0 [+398.0, +402.0] | 95 % [94 %, 96 %] |" in shown
    assert "no gate is judged by it" in shown


def test_the_page_draws_the_waterfall_and_escapes_names(explained: Path) -> None:
    page = html(read_run(explained))
    assert "v1.1 against v1.0: where the time goes" in page
    assert "old&lt;b&gt;" in page
    assert "old<b>" not in page
    assert page.count("+400.0") >= 2


def test_a_report_with_an_explanation_reads_back(explained: Path) -> None:
    read = read_run(explained)
    assert from_json(to_json(read)) == read


def test_a_damaged_explanation_is_refused(explained: Path) -> None:
    (explained / "explanation.json").write_text('{"kind": "explanations", "explanations": 5}')
    with pytest.raises(InputError, match="is not a explanations of version 1"):
        read_run(explained)


def test_a_disturbed_explanation_says_what_can_be_trusted(explained: Path, explanation: Explanation) -> None:
    spoiled = msgspec.structs.replace(explanation, invalid=("the machine swapped",), unsteady=("others held the CPU",))
    (explained / "explanation.json").write_bytes(msgspec.json.encode(Explanations(explanations=(spoiled,))))
    page = markdown(read_run(explained))
    assert "INVALID: the machine swapped" in page
    assert "Unsteady: others held the CPU" in page
    console = Console(width=200)
    with console.capture() as text:
        console.print(explanation_view(spoiled))
    assert text.get().startswith("INVALID: the machine swapped")
    assert "unsteady: others held the CPU (trust differences more than times)" in text.get()


def test_an_estimate_without_bounds_can_be_shown(explained: Path, explanation: Explanation) -> None:
    vague = Estimate(value=3.0, low=None, high=None, n=3)
    loose = msgspec.structs.replace(explanation, outside=msgspec.structs.replace(explanation.outside, difference_us=vague, share=None))
    (explained / "explanation.json").write_bytes(msgspec.json.encode(Explanations(explanations=(loose,))))
    assert "+3.0 [unknown]" in markdown(read_run(explained))
