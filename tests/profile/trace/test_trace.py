from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from liftgate.core.artifact import ModelArtifact
from liftgate.core.errors import InputError
from liftgate.core.spans import INFER, POSTPROCESS, REQUEST
from liftgate.core.store import Store
from liftgate.profile.cli import app
from liftgate.profile.trace.chrome import Complete, Metadata, flaws, read_chrome
from liftgate.profile.trace.trace import trace
from typer.testing import CliRunner

MakeTower = Callable[..., ModelArtifact]


def parents(events: list[Complete]) -> dict[str, set[str]]:
    """Names of the events directly around the events of a name, on one track."""
    found: dict[str, set[str]] = {}
    around: list[Complete] = []
    for event in events:
        while around and round((around[-1].ts + around[-1].dur) * 1e3) <= round(event.ts * 1e3) and around[-1].dur + event.dur:
            around.pop()
        found.setdefault(event.name, set()).add(around[-1].name if around else "")
        around.append(event)
    return found


def test_a_trace_has_node_times_inside_infer_inside_requests(make_tower: MakeTower, store: Store, tmp_path: Path) -> None:
    make_tower("v1.1", slowed=True)
    found = trace("v1.1", tmp_path / "t.json", seconds=0.3, stacks=False, store=store, threads=1)
    read = read_chrome(tmp_path / "t.json")
    assert flaws(read) == []
    inside = parents([e for e in read.traceEvents if isinstance(e, Complete)])
    assert inside[REQUEST] == {""}
    assert (inside[INFER], inside[POSTPROCESS], inside["run"]) == ({REQUEST}, {REQUEST}, {INFER})
    assert inside["tower/MatMul"] == {"run"}
    tables = found.tables
    assert (tables.nodes[0].name, tables.nodes[0].op, tables.operators[0].name) == ("tower/MatMul", "MatMul", "MatMul")
    assert {n.name for n in tables.nodes} >= {"user/Gather", "item/Gather", "interaction/Mul"}
    total = sum(p.typical_us.value or 0.0 for p in (*tables.operators, tables.outside))
    assert total == pytest.approx(tables.infer_us.value)
    assert tables.tail_us > (tables.infer_us.value or 0)
    assert any("no gate is judged" in note for note in found.notes)


@pytest.mark.usefixtures("no_ptrace")
def test_without_ptrace_a_trace_says_why_it_has_no_stacks(make_tower: MakeTower, store: Store, tmp_path: Path) -> None:
    make_tower("v1.0")
    found = trace("v1.0", tmp_path / "t.json", seconds=0.2, store=store, threads=1)
    assert found.notes[0].startswith("no stacks: py-spy could not sample the process: Permission Denied; sampling needs ptrace")
    names = {e.args["name"] for e in read_chrome(tmp_path / "t.json").traceEvents if isinstance(e, Metadata) and e.name == "process_name"}
    assert names == {"v1.0: requests"}


def test_pytorch_tells_operator_times_as_well(tmp_path: Path) -> None:
    class Ranker(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.head = torch.nn.Linear(8, 64), torch.nn.Linear(64, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.head(torch.relu(self.wide(x)))).squeeze(-1)

    rows = torch.export.Dim("rows", min=2, max=1000)
    program = torch.export.export(Ranker().eval(), (torch.zeros(4, 8),), dynamic_shapes=({0: rows},))
    torch.export.save(program, tmp_path / "ranker.pt2")
    found = trace(tmp_path / "ranker.pt2", tmp_path / "t.json", seconds=0.2, stacks=False, store=tmp_path / "store", threads=1)
    assert "aten::addmm" in {p.name for p in found.tables.operators}
    assert {"aten::addmm #0", "aten::addmm #1"} <= {p.name for p in found.tables.nodes}
    assert found.tables.resolution_us < 1
    assert flaws(read_chrome(tmp_path / "t.json")) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["trace"], "expected a model, or the --pid of a running process, found neither"),
        (["trace", "v1.0", "--pid", "5"], "expected a model, or the --pid of a running process, found both"),
        (["flame", "--pid", "99999999"], "expected the id of a running process, found 99999999"),
        (["flame", "--pid", "1", "--threads", "2"], "--threads: expected a model to ask, found a process that serves"),
        (["trace", "--spans", "nowhere"], "nowhere: cannot be read"),
        (["explain", "v1.0", "v9"], "unknown model 'v1.0'"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_was_expected(words: list[str], problem: str, tmp_path: Path) -> None:
    out = [] if words[0] == "explain" else ["--out", str(tmp_path / "o.txt")]
    result = CliRunner().invoke(app, [*words, *out, *(["--store", str(tmp_path)] if words[0] == "explain" else [])])
    assert result.exit_code == 2
    assert problem in result.output


def test_a_folder_without_spans_is_refused_with_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["trace", "--spans", str(tmp_path), "--out", str(tmp_path / "t.json")])
    assert "expected a file of spans, found none; start it with `liftgate serve" in result.output


def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a file to write, found a folder"):
        trace("v1.0", tmp_path, store=tmp_path / "store")
