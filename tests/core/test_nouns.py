from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from liftgate.core.config import parse_toml, read_toml
from liftgate.core.errors import InputError, UnknownName
from liftgate.core.estimate import Estimate
from liftgate.core.files import new_file, write_atomically
from liftgate.core.signature import IdColumn, InputSpec, OutputSpec, Signature, stated
from liftgate.core.units import parse_quantity
from liftgate.core.verdict import Finding, Outcome, judge


def finding(outcome: str, level: str = "error") -> Finding:
    return msgspec.convert({"outcome": outcome, "gate": "g", "reason": "r", "level": level}, Finding)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["PASS", "PASS"], "PASS"),
        (["PASS", "UNDECIDED"], "UNDECIDED"),
        (["UNDECIDED", "INVALID"], "INVALID"),
        (["INVALID", "FAIL", "PASS"], "FAIL"),
    ],
)
def test_a_verdict_is_as_good_as_its_worst_finding(outcomes: list[str], expected: str) -> None:
    verdict = judge([finding(o) for o in outcomes])
    assert verdict is not None
    assert verdict.outcome == expected


def test_a_warning_never_changes_the_verdict() -> None:
    verdict = judge([finding("PASS"), finding("FAIL", "warn")])
    assert verdict is not None
    assert verdict.outcome is Outcome.PASS


def test_nothing_to_judge_is_no_verdict() -> None:
    assert judge([]) is None


def test_exit_codes_leave_two_to_usage_errors() -> None:
    assert {o.value: o.exit_code for o in Outcome} == {"PASS": 0, "FAIL": 1, "UNDECIDED": 3, "INVALID": 4}


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [("20 ms", "ms", 20.0), ("150us", "ms", 0.15), ("1.5 s", "ms", 1500.0), ("64 MiB", "bytes", 67108864.0), ("5%", "fraction", 0.05)],
)
def test_quantities_carry_units(text: str, dimension: str, value: float) -> None:
    assert parse_quantity(text, dimension, where="gate 1") == pytest.approx(value)  # type: ignore[arg-type]  # parametrized literals


@pytest.mark.parametrize(("text", "dimension"), [("20", "ms"), ("20 ms", "bytes"), ("fast", "ms"), ("", "fraction")])
def test_a_quantity_without_its_unit_is_refused(text: str, dimension: str) -> None:
    with pytest.raises(InputError, match=r"budget.toml: gate 1: expected a number with a unit"):
        parse_quantity(text, dimension, where="budget.toml: gate 1")  # type: ignore[arg-type]  # parametrized literals


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    weights: str = "int8"


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: list[Inner]


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"int8.toml: step 1: unknown key 'wieghts'; did you mean 'weights'\?"):
        parse_toml("[[step]]\nwieghts = 'int8'\n", Outer, where="int8.toml")


def test_broken_and_missing_toml_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not valid TOML"):
        parse_toml("a = = 1", Outer, where="x.toml")
    with pytest.raises(InputError, match="expected a TOML file, found nothing"):
        read_toml(tmp_path / "none.toml", Outer)


def test_an_estimate_shows_the_unknown_as_unknown() -> None:
    assert Estimate(value=0.5, low=None, high=0.625, n=3).text(2) == "0.50 [?, 0.62]"
    with pytest.raises(ValueError, match="finite"):
        Estimate(value=float("nan"), low=None, high=None, n=0)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), new_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("bad", ["a file/out.json", "a folder"])
def test_a_path_that_cannot_be_written_is_one_clear_error(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_atomically(tmp_path / bad, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a file", "a folder"]


SIGNATURE = Signature(
    inputs=(
        InputSpec(name="user", dtype="int64", shape=("rows",), role="request"),
        InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate"),
    ),
    outputs=(OutputSpec(name="score", dtype="float32", shape=("rows",)),),
)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({"user": np.zeros(3, np.int64)}, "input 'x': expected a float32 tensor, found nothing"),
        ({"user": np.zeros(3, np.int32), "x": np.zeros((3, 2), np.float32)}, "input 'user': expected int64, found int32"),
        ({"user": np.zeros(3, np.int64), "x": np.zeros((3, 4), np.float32)}, r"expected shape \['rows', 2\]"),
        ({"user": np.zeros(3, np.int64), "x": np.zeros((4, 2), np.float32)}, "with rows = 3"),
        ({"usr": np.zeros(3, np.int64)}, "unknown input 'usr'; did you mean 'user'"),
    ],
)
def test_feeds_that_do_not_fit_the_signature_are_named(feeds: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SIGNATURE.check(feeds, where="request 1")


def test_a_signature_without_id_columns_has_the_digest_form_it_always_had() -> None:
    spec = {"name": "user", "dtype": "int64", "shape": ["rows"], "role": "request", "rows_of_table": None}
    other = {"name": "x", "dtype": "float32", "shape": ["rows", 2], "role": "candidate", "rows_of_table": None}
    score = {"name": "score", "dtype": "float32", "shape": ["rows"]}
    first = {"inputs": [spec, other], "outputs": [score], "layout": "rows"}
    assert msgspec.convert(first, Signature) == SIGNATURE
    assert msgspec.json.encode(stated(SIGNATURE), order="sorted") == msgspec.json.encode(first, order="sorted")


def test_id_columns_are_written_and_read_back() -> None:
    spec = InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate", id_columns=(IdColumn(column=1, rows_of_table=9),))
    signature = msgspec.structs.replace(SIGNATURE, inputs=(spec,))
    assert msgspec.json.decode(msgspec.json.encode(signature), type=Signature) == signature
    assert b'"id_columns":[{"column":1,"rows_of_table":9}]' in msgspec.json.encode(stated(signature))


@pytest.mark.parametrize("shape", [("rows",), ("rows", 2), ("rows", "length")])
def test_an_id_column_outside_the_last_axis_is_refused(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(InputError, match="input 'x': id column 2: expected a column of the last axis"):
        InputSpec(name="x", dtype="float32", shape=shape, role="candidate", id_columns=(IdColumn(column=2),))


@pytest.mark.parametrize(
    ("rows", "id_columns", "holds"),
    [(None, (), False), (5, (), True), (None, (IdColumn(column=0),), True), (None, (IdColumn(column=None),), True)],
)
def test_an_input_says_whether_it_holds_ids(rows: int | None, id_columns: tuple[IdColumn, ...], holds: bool) -> None:
    spec = InputSpec(name="x", dtype="float32", shape=("rows", 2), role="candidate", rows_of_table=rows, id_columns=id_columns)
    assert spec.holds_ids is holds
