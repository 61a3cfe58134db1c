from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from liftgate.core.errors import InputError, UnknownName
from liftgate.profile.arrivals import Poisson, arrivals_of, read_trace, ref_of

SECOND = 1_000_000_000


def write(path: Path, *times: str, heading: str = "TIMESTAMP,tokens") -> Path:
    path.write_text("\n".join([heading, *(f"{time},1" for time in times)]))
    return path


def test_poisson_arrivals_have_the_rate_and_the_scatter_of_independent_users() -> None:
    offsets = Poisson(rate_per_s=200).draw(50_000, np.random.default_rng(0))
    gaps = np.diff(offsets) / SECOND
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.02)
    assert (gaps >= 0).all()


def test_arrivals_are_those_of_their_seed() -> None:
    one, same, other = (Poisson(rate_per_s=5).draw(100, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_trace_keeps_its_gaps_and_begins_again_after_its_end(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t.csv", "2023-11-16 18:15:46.5", "2023-11-16 18:15:47.0", "2023-11-16 18:15:49.5"))
    # 2 gaps in 3 seconds; the way back to the beginning takes their mean.
    assert trace.rate_per_s == pytest.approx(2 / 3)
    assert trace.gaps_ns.tolist() == [SECOND // 2, 5 * SECOND // 2]
    gaps = np.diff(trace.draw(31, np.random.default_rng(0)))
    assert gaps.sum() == pytest.approx(10 * 4.5 * SECOND)
    assert sorted(gaps[:3].tolist()) == [SECOND // 2, 3 * SECOND // 2, 5 * SECOND // 2]


def test_a_rate_scales_the_time_of_a_trace_and_keeps_its_bursts(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "0", "1", "1.5", "10")
    plain, fast = arrivals_of(None, path), arrivals_of(30, path)
    assert [plain.rate_per_s, fast.rate_per_s] == pytest.approx([0.3, 30])
    slow, quick = (np.diff(a.draw(9, np.random.default_rng(3))) for a in (plain, fast))
    np.testing.assert_allclose(slow / quick, 100, rtol=1e-6)
    assert ref_of(plain).gap_cv == ref_of(fast).gap_cv == pytest.approx(np.std([1, 0.5, 8.5]) / (10 / 3))


def test_parquet_timestamps_and_seconds_are_read(tmp_path: Path) -> None:
    moments = [datetime(2026, 1, 1) + timedelta(seconds=s) for s in (0, 0.25, 2)]
    pq.write_table(pa.table({"n": [1, 2, 3], "Time": pa.array(moments, type=pa.timestamp("ms"))}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"arrived": [0.0, 0.25, 2.0]}), tmp_path / "b.parquet")
    first, second = read_trace(tmp_path / "a.parquet"), read_trace(tmp_path / "b.parquet", "arrived")
    assert first.gaps_ns.tolist() == second.gaps_ns.tolist() == [SECOND // 4, 7 * SECOND // 4]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (["0", "1", "later"], r"column 'TIMESTAMP': line 4: expected a time .*, found 'later'"),
        (["0", ""], r"line 3: expected a time .*, found nothing"),
        (["0", "2", "1"], r"line 4: expected times in ascending order"),
        (["0", "nan"], r"line 3: expected a time in seconds, found nan"),
        (["1700000000000", "1700000000001"], r"line 2: expected a time in seconds, found 1.7e\+12; convert milliseconds"),
        (["2026-01-01T00:00:00Z", "2026-01-01T00:00:01"], r"line 3: expected time zones in every row or in none"),
        (["5"], r"expected at least two arrivals, found 1"),
        (["5", "5"], r"expected arrivals at more than one time"),
    ],
)
def test_a_bad_trace_is_refused_with_column_and_line(times: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_trace(write(tmp_path / "t.csv", *times))


def test_a_trace_without_a_column_of_times_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "0", "1", heading="when,tokens")
    with pytest.raises(InputError, match=r"expected a column of times called timestamp.*found when, tokens; name it with --trace-column"):
        read_trace(path)
    with pytest.raises(UnknownName, match="unknown column 'wen'; did you mean 'when'"):
        read_trace(path, "wen")
    assert read_trace(path, "when").arrivals == 2


def test_missing_files_folders_and_binaries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing; check the path"):
        read_trace(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a readable CSV file"):
        read_trace(tmp_path / "x.bin")
    (tmp_path / "y.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_trace(tmp_path / "y.parquet")


def test_a_rate_or_a_trace_must_be_given() -> None:
    with pytest.raises(InputError, match="give --rate 200 or --trace FILE"):
        arrivals_of(None, None)
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="--rate: expected requests per second"):
            arrivals_of(rate, None)


@pytest.mark.skipif("LIFTGATE_DATA" not in os.environ, reason="LIFTGATE_DATA does not say where the real traces are")
def test_a_real_trace_is_read() -> None:
    trace = read_trace(Path(os.environ["LIFTGATE_DATA"]) / "azure-llm-2023" / "AzureLLMInferenceTrace_conv.csv")
    assert trace.arrivals == 19_366
    assert trace.rate_per_s == pytest.approx(19_365 / 3_502, rel=0.001)
    assert ref_of(trace).gap_cv ** 2 == pytest.approx(1.20, abs=0.01)
