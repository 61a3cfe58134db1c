from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from liftgate.core.errors import InputError, RunFailed
from liftgate.profile.trace.sampler import check_traceable, sample


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def py_spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sampler that writes its result and says what a test puts into `words`."""
    path = tmp_path / "py-spy"
    path.write_text(f'#!/bin/sh\ncat {tmp_path}/words >&2\nwhile [ "$1" != --output ]; do shift; done\necho stacks > "$2"\n')
    path.chmod(0o755)
    monkeypatch.setattr("liftgate.profile.trace.sampler.shutil.which", lambda *_, **__: str(path))
    return tmp_path / "words"


def notes(pid: int, tmp_path: Path) -> tuple[str, ...]:
    return sample(pid, tmp_path / "out", "raw", seconds=1, native=False).notes


def test_a_sampler_that_fell_behind_is_told(py_spy: Path, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    py_spy.write_text("1.23s behind in sampling, results may be inaccurate\n2.50s behind in sampling\nSamples: 80 Errors: 0\n")
    (note,) = notes(sleeper.pid, tmp_path)
    assert note.startswith("py-spy fell 2.5 s behind, so shares may be wrong")


def test_stacks_that_could_not_be_read_are_told(py_spy: Path, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    py_spy.write_text("Samples: 80 Errors: 40\n")
    assert notes(sleeper.pid, tmp_path) == ("40 stacks could not be read, against 80 that could: shares may be wrong",)


def test_a_process_that_ended_meanwhile_is_told_although_py_spy_ends_with_0(
    py_spy: Path, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    py_spy.write_text("Samples: 80 Errors: 0\n")
    sleeper.kill()
    sleeper.wait()
    (note,) = notes(sleeper.pid, tmp_path)
    assert note.startswith("the process ended after about")


def test_no_samples_are_no_result(py_spy: Path, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    py_spy.write_text("Samples: 0 Errors: 0\n")
    with pytest.raises(RunFailed, match=r"no thread of the process was busy when py-spy looked; send requests .* or .* --idle"):
        notes(sleeper.pid, tmp_path)


def test_a_good_run_has_nothing_to_tell(py_spy: Path, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    py_spy.write_text("Samples: 80 Errors: 0\n")
    found = sample(sleeper.pid, tmp_path / "out", "raw", seconds=1, native=False)
    assert (found.samples, found.notes) == (80, ())


def test_a_process_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the id of a running process, found 7, which nothing has; .*pgrep"):
        check_traceable(7, proc=tmp_path)


def test_this_process_itself_is_refused() -> None:
    with pytest.raises(InputError, match="another process, found"):
        check_traceable(os.getpid())


def fake(proc: Path, status: str) -> Path:
    (proc / "7").mkdir()
    (proc / "7" / "status").write_text(status)
    return proc


def test_a_process_that_somebody_traces_already_is_refused(tmp_path: Path) -> None:
    fake(tmp_path, "Name:\tpython\nState:\tS (sleeping)\nTracerPid:\t12\n")
    with pytest.raises(InputError, match="a process that nobody traces, found 7, traced by process 12"):
        check_traceable(7, proc=tmp_path)


def test_an_ended_process_is_refused(tmp_path: Path) -> None:
    fake(tmp_path, "Name:\tpython\nState:\tZ (zombie)\n")
    with pytest.raises(InputError, match="a running process, found 7, which has ended"):
        check_traceable(7, proc=tmp_path)


def test_a_process_that_may_not_be_traced_is_refused_with_what_to_change(tmp_path: Path) -> None:
    fake(tmp_path, "Name:\tpython\nState:\tS (sleeping)\nTracerPid:\t0\n")
    (tmp_path / "sys/kernel/yama").mkdir(parents=True)
    (tmp_path / "sys/kernel/yama/ptrace_scope").write_text("2\n")
    with pytest.raises(InputError, match=r"found 7: .*; kernel\.yama\.ptrace_scope is 2; sampling needs ptrace: .*SYS_PTRACE"):
        check_traceable(7, proc=tmp_path)


def test_a_process_of_ours_may_be_traced(sleeper: subprocess.Popen[bytes]) -> None:
    check_traceable(sleeper.pid)
