from __future__ import annotations

import io
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from liftgate.core.errors import InputError
from liftgate.core.estimate import Estimate
from liftgate.core.machine import Machine
from liftgate.core.verdict import Outcome
from liftgate.profile.trend import TrendLatency, TrendLine, TrendModel, append, read_trend
from liftgate.profile.trend_view import sparkline, trend_view
from rich.console import Console

MACHINE = Machine(cpu="AMD EPYC", cores=2, threads_per_core=1, memory_gib=8.0, features=(), system="Linux", fingerprint="aaaa00001111")
OTHER = msgspec.structs.replace(MACHINE, cpu="Intel Xeon", fingerprint="bbbb00002222")


def line(day: int, p95: float = 1.2, *, machine: Machine = MACHINE, invalid: bool = False, outcome: Outcome = Outcome.PASS) -> TrendLine:
    p95_ms = Estimate(value=p95, low=p95 - 0.1, high=p95 + 0.1, n=40)
    ratio = Estimate(value=1.01, low=0.99, high=1.03, n=40)
    latency = TrendLatency(
        instance="local", label="measured", model="v1.1", quantiles_ms={"p95": p95_ms}, ratios={"p95": ratio}, disturbed=invalid
    )
    return TrendLine(
        started_at=f"2026-11-{day:02d}T10:00:00+00:00",
        machine=machine,
        control=TrendModel(name="v1.0", digest="ab" * 32),
        treatment=TrendModel(name="v1.1", digest="cd" * 32),
        outcome=outcome,
        gates={"latency_p95 max 2 ms on local": outcome},
        latency=(latency,),
        tools={"onnxruntime": "1.23"},
        seed=0,
    )


def text(place: Path, last: int = 20) -> str:
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(trend_view(read_trend(place), last=last))
    return captured.get()


def test_every_machine_has_its_file_and_its_table(tmp_path: Path) -> None:
    append(tmp_path, line(1))
    append(tmp_path, line(2, machine=OTHER))
    append(tmp_path, line(3, 1.4))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["aaaa00001111.jsonl", "bbbb00002222.jsonl"]
    machines = read_trend(tmp_path).machines()
    assert {name: len(lines) for name, lines in machines.items()} == {"aaaa00001111": 2, "bbbb00002222": 1}
    assert text(tmp_path).count("local (measured)") == 2


def test_a_line_reads_back_as_it_was(tmp_path: Path) -> None:
    append(tmp_path / "h.jsonl", line(1))
    assert read_trend(tmp_path / "h.jsonl").lines == (line(1),)


def test_machines_in_one_file_are_not_mixed_either(tmp_path: Path) -> None:
    for entry in (line(1), line(2, machine=OTHER)):
        append(tmp_path / "all.jsonl", entry)
    assert len(read_trend(tmp_path / "all.jsonl").machines()) == 2


def test_lines_that_cannot_be_read_are_told_and_kept(tmp_path: Path) -> None:
    file = append(tmp_path, line(1))
    odd = b'{"version":2,"future":true}\n\xff\xfe\n'
    with file.open("ab") as handle:
        handle.write(odd)
    append(tmp_path, line(2))
    found = read_trend(tmp_path)
    assert [u.line for u in found.unreadable] == [2, 3]
    assert len(found.lines) == 2
    assert odd in file.read_bytes()
    assert "line 2 cannot be read and was left as it is" in " ".join(text(tmp_path).split())


def test_half_a_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = append(tmp_path, line(1))
    with file.open("ab") as handle:
        handle.write(b'{"version":1,"star')
    append(tmp_path, line(2))
    found = read_trend(tmp_path)
    assert [entry.started_at[8:10] for entry in found.lines] == ["01", "02"]
    assert [u.line for u in found.unreadable] == [2]


WRITER = """
import sys
from pathlib import Path
import msgspec
from liftgate.profile.trend import TrendLine, append
entry = msgspec.json.decode(sys.argv[2].encode(), type=TrendLine)
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    append(Path(sys.argv[1]), entry)
"""


def writer(place: Path, times: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITER, str(place), msgspec.json.encode(line(1)).decode(), str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_jobs_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    jobs = [writer(tmp_path, 40) for _ in range(3)]
    assert [job.communicate()[1] or job.returncode for job in jobs] == [0, 0, 0]
    found = read_trend(tmp_path)
    assert (len(found.lines), found.unreadable) == (120, ())


def test_a_writer_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    with writer(tmp_path, 1_000_000) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == b"ready\n"
        while not any(p.stat().st_size > 5000 for p in tmp_path.iterdir()):
            pass
        job.send_signal(signal.SIGKILL)
    append(tmp_path, line(2))
    found = read_trend(tmp_path)
    assert found.unreadable == ()
    assert found.lines[-1] == line(2)


def test_a_fingerprint_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fingerprint"):
        append(tmp_path, line(1, machine=msgspec.structs.replace(MACHINE, fingerprint="../../x")))


def test_no_history_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write one: profile gate"):
        read_trend(tmp_path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"user": "u1"}\n')
    with pytest.raises(InputError, match=r"expected runs of a gate, found nothing that can be read \(.*events\.jsonl: line 1: "):
        read_trend(tmp_path)
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(InputError, match="expected runs of a gate, found no line"):
        read_trend(tmp_path)


def test_a_sparkline_goes_from_lowest_to_highest_and_dots_what_is_unknown() -> None:
    assert sparkline([1.0, 2.0, None, 8.0]) == "▁▂·█"
    assert sparkline([3.0, 3.0]) == "▄▄"
    assert sparkline([]) == ""


def test_a_disturbed_run_is_shown_but_not_drawn(tmp_path: Path) -> None:
    for entry in (line(1, 1.0), line(2, 90.0, invalid=True, outcome=Outcome.INVALID), line(3, 2.0)):
        append(tmp_path, entry)
    shown = text(tmp_path)
    assert "▁·█ 1 to 2 ms" in shown
    assert "INVALID" in shown


def test_only_the_last_runs_are_shown_when_asked(tmp_path: Path) -> None:
    for day in range(1, 8):
        append(tmp_path, line(day))
    shown = text(tmp_path, last=2)
    assert "2026-11-07" in shown
    assert "2026-11-05" not in shown
    assert "7 runs" in shown
