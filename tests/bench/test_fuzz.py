from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from liftgate.bench.fuzz import Case, fuzz, judge_all, report
from liftgate.bench.fuzzing.pickle_damage import payload
from liftgate.bench.fuzzing.seeds import Seed, make_seeds
from liftgate.bench.fuzzing.worker import SEEDS, judge, write_case


@pytest.fixture(scope="module")
def seeds() -> list[Seed]:
    return make_seeds()


def test_damaged_files_of_every_kind_are_loaded_or_refused(seeds: list[Seed]) -> None:
    cases = fuzz(14 * len(seeds), seed=1, workers=2)
    assert [case for case in cases if case.outcome not in {"loaded", "refused"}] == []
    assert {case.kind for case in cases} == {seed.name for seed in seeds}
    assert {case.outcome for case in cases} == {"loaded", "refused"}


def test_what_is_not_damaged_is_taken(seeds: list[Seed], tmp_path: Path) -> None:
    found = {}
    for number, seed in enumerate(seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in seed.files.items():
            (folder / name).write_bytes(content)
        found[seed.name] = judge(seed, folder / seed.main).partition(" ")[0]
    assert [name for name, outcome in found.items() if outcome != "loaded"] == ["pickled module", "pickle"]


def test_a_file_is_the_same_whenever_it_is_made(seeds: list[Seed], tmp_path: Path) -> None:
    contents = []
    for run in ("a", "a"):
        (tmp_path / run).mkdir(exist_ok=True)
        _, path = write_case(seeds, 3, 17, tmp_path / run / "file")
        contents.append([file.read_bytes() for file in sorted(path.parent.iterdir())])
    assert contents[0] == contents[1]


def test_payloads_are_live(tmp_path: Path) -> None:
    pickle.loads(payload(tmp_path / "ran"))
    assert (tmp_path / "ran").read_text() == "ran"


def test_a_file_that_ends_the_process_is_a_crash_and_the_others_go_on(tmp_path: Path) -> None:
    fine = Seed(name="fine", files={"model": b"hello"}, main="model")
    # No file has this name: writing the case already fails, outside of what the worker catches.
    broken = Seed(name="broken", files={"no/such/folder": b"hello"}, main="model")
    (tmp_path / SEEDS).write_bytes(pickle.dumps([fine, broken]))
    cases = judge_all(tmp_path, 0, range(3))
    assert [(case.index, case.outcome) for case in cases] == [(0, "refused"), (1, "crash"), (2, "refused")]


def test_the_report_says_how_to_make_a_crash_again() -> None:
    cases = [Case(index=0, kind="pickle", outcome="refused", detail="x"), Case(index=7, kind="pickle", outcome="crash", detail="hangs")]
    lines = report(cases, seed=3, seconds=2.0)
    assert "| pickle | 0 | 1 | 1 |" in lines
    assert lines[-1] == "- (seed 3, index 7) pickle: hangs"
