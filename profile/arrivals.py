"""When requests arrive: at random with a rate, or as they once did."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..core.errors import InputError, UnknownName
from ..core.files import sha256_of

Offsets = npt.NDArray[np.int64]
_TIME_COLUMNS = ("timestamp", "time", "ts", "arrival", "arrival_time", "arrived_at", "datetime")
_MOST_PER_SECOND = 1e6


class Poisson(msgspec.Struct, frozen=True, kw_only=True, tag="poisson", tag_field="kind"):
    """Independent users: exponential gaps around a mean rate."""

    rate_per_s: float

    def __post_init__(self) -> None:
        check_rate(self.rate_per_s, "--rate")

    def draw(self, count: int, rng: np.random.Generator) -> Offsets:
        """`count` arrivals in nanoseconds after the start, ascending."""
        return np.cumsum(rng.exponential(1e9 / self.rate_per_s, count)).astype(np.int64)

    def at_rate(self, rate_per_s: float) -> Poisson:
        """The same at another mean rate."""
        return Poisson(rate_per_s=rate_per_s)


class Trace(msgspec.Struct, frozen=True, kw_only=True, tag="trace", tag_field="kind"):
    """Arrivals as recorded in a file, bursts and all.

    `rate_per_s` is the mean over the whole trace: `recorded_per_s` unless time was scaled. `gaps_ns` are those of the file, unscaled.
    """

    source: str
    sha256: str
    arrivals: int
    recorded_per_s: float
    rate_per_s: float
    gaps_ns: npt.NDArray[np.int64]

    def draw(self, count: int, rng: np.random.Generator) -> Offsets:
        """`count` consecutive arrivals from a place drawn anew, in nanoseconds after the start; after its end the trace begins again."""
        gaps = np.append(self.gaps_ns, round(1e9 / self.recorded_per_s))
        taken = gaps[(rng.integers(len(gaps)) + np.arange(count)) % len(gaps)]
        return np.asarray(np.cumsum(taken) * (self.recorded_per_s / self.rate_per_s)).astype(np.int64)

    def at_rate(self, rate_per_s: float) -> Trace:
        """The same with time scaled to another mean rate."""
        check_rate(rate_per_s, "--rate")
        return msgspec.structs.replace(self, rate_per_s=rate_per_s)


Arrivals = Poisson | Trace


class ArrivalsRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How results name arrivals; `gap_cv` is the gaps' standard deviation over their mean: 1 for Poisson, more for bursts."""

    process: str
    rate_per_s: float
    gap_cv: float
    source: str | None = None
    sha256: str | None = None
    recorded_per_s: float | None = None


def ref_of(arrivals: Arrivals) -> ArrivalsRef:
    """What results say about `arrivals`."""
    match arrivals:
        case Poisson(rate_per_s=rate):
            return ArrivalsRef(process="poisson", rate_per_s=rate, gap_cv=1.0)
        case Trace():
            return ArrivalsRef(
                process="trace",
                rate_per_s=arrivals.rate_per_s,
                gap_cv=float(arrivals.gaps_ns.std() / arrivals.gaps_ns.mean()),
                source=arrivals.source,
                sha256=arrivals.sha256,
                recorded_per_s=arrivals.recorded_per_s,
            )


def check_rate(rate_per_s: float, where: str) -> None:
    """Raise InputError for a rate that nothing can be asked at."""
    if not (0 < rate_per_s <= _MOST_PER_SECOND):
        raise InputError.mismatch(
            where, expected=f"requests per second, more than 0 and at most {_MOST_PER_SECOND:g}", found=f"{rate_per_s:g}"
        )


def arrivals_of(rate_per_s: float | None, trace: Path | str | None, column: str | None = None) -> Arrivals:
    """Poisson at a rate, or a trace, which a rate scales; raises InputError when there is neither."""
    if trace is not None:
        recorded = read_trace(Path(trace), column)
        return recorded if rate_per_s is None else recorded.at_rate(rate_per_s)
    if column is not None:
        raise InputError.mismatch("--trace-column", expected="a --trace that has it", found="no trace")
    if rate_per_s is None:
        raise InputError.mismatch("arrivals", expected="a rate or a trace", found="neither", fix="give --rate 200 or --trace FILE")
    return Poisson(rate_per_s=rate_per_s)


def read_trace(path: Path, column: str | None = None) -> Trace:
    """Arrival times of a CSV file (ISO 8601, or seconds) or of a Parquet file (timestamps, or seconds), in ascending order.

    The column is `column`, else the one called `timestamp`, `time` or the like in any case. Raises InputError naming row and column.
    """
    try:
        with path.open("rb") as file:
            parquet = file.read(4) == b"PAR1"
    except FileNotFoundError:
        raise InputError.mismatch(str(path), expected="a trace (CSV or Parquet)", found="nothing", fix="check the path") from None
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror or error})", fix="give one CSV or Parquet file") from None
    times, where = _parquet_times(path, column) if parquet else _csv_times(path, column)
    if len(times) < 2:
        raise InputError.mismatch(where, expected="at least two arrivals", found=str(len(times)))
    gaps = np.diff(times)
    if (gaps < 0).any():
        row = int(np.argmax(gaps < 0)) + 1
        raise InputError.mismatch(
            f"{where}: {_row(row, parquet)}", expected="times in ascending order", found="an earlier time than before", fix="sort the file"
        )
    span_s = float(times[-1] - times[0]) / 1e9
    if span_s == 0:
        raise InputError.mismatch(where, expected="arrivals at more than one time", found="one time only")
    rate = len(gaps) / span_s
    check_rate(rate, where)
    return Trace(source=str(path), sha256=sha256_of(path), arrivals=len(times), recorded_per_s=rate, rate_per_s=rate, gaps_ns=gaps)


def _row(position: int, parquet: bool) -> str:
    """How a person finds arrival `position` (from 0): a line of a CSV file that has a heading, a row of a table."""
    return f"row {position + 1}" if parquet else f"line {position + 2}"


def _time_column(path: Path, columns: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in columns:
            raise UnknownName(str(path), "column", wanted, columns)
        return wanted
    found = [name for known in _TIME_COLUMNS for name in columns if name.strip().lower() == known]
    if not found:
        shown = ", ".join(columns[:10]) or "no columns"
        fix = "name it with --trace-column"
        raise InputError.mismatch(str(path), expected="a column of times called timestamp, time or the like", found=shown, fix=fix)
    return found[0]


def _csv_times(path: Path, column: str | None) -> tuple[Offsets, str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            heading = next(rows, [])
            name = _time_column(path, heading, column)
            where = f"{path}: column '{name}'"
            return np.array(list(_parsed(rows, heading.index(name), where)), dtype=np.int64), where
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(str(path), f"is not a readable CSV file ({error})", fix="give a CSV or Parquet file of arrival times") from None


def _parsed(rows: Iterator[list[str]], position: int, where: str) -> Iterator[int]:
    """Nanoseconds of every row; empty lines are left out, anything else that is no time is refused."""
    aware: bool | None = None
    for line, row in enumerate(rows, start=2):
        if not row:
            continue
        at = f"{where}: line {line}"
        if len(row) <= position:
            raise InputError.mismatch(at, expected=f"at least {position + 1} values", found=str(len(row)))
        text = row[position].strip()
        try:
            yield _seconds_ns(float(text), at)
            continue
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            expected = "a time such as 2023-11-16 18:15:46.68, or seconds"
            raise InputError.mismatch(at, expected=expected, found=repr(text[:40]) if text else "nothing") from None
        if aware is not None and aware != (moment.tzinfo is not None):
            raise InputError.mismatch(at, expected="time zones in every row or in none", found=repr(text))
        aware = moment.tzinfo is not None
        since = (moment if aware else moment.replace(tzinfo=UTC)) - datetime.fromtimestamp(0, UTC)
        yield (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _seconds_ns(seconds: float, at: str) -> int:
    if not (math.isfinite(seconds) and abs(seconds) < 9e9):
        fix = "convert milliseconds or nanoseconds to seconds"
        raise InputError.mismatch(at, expected="a time in seconds", found=f"{seconds:g}", fix=fix)
    return round(seconds * 1e9)


def _parquet_times(path: Path, column: str | None) -> tuple[Offsets, str]:
    try:
        name = _time_column(path, pq.read_schema(path).names, column)
        values = pq.read_table(path, columns=[name])[name].combine_chunks()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(str(path), f"is not a readable Parquet file ({reason})", fix="write it with pandas or pyarrow") from None
    where = f"{path}: column '{name}'"
    if values.null_count:
        row = int(np.argmax(np.asarray(values.is_null()))) + 1
        raise InputError.mismatch(f"{where}: row {row}", expected="a time", found="nothing")
    if pa.types.is_timestamp(values.type):
        return np.asarray(values.cast(pa.timestamp("ns", tz=values.type.tz), safe=False).cast(pa.int64())), where
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise InputError.mismatch(where, expected="timestamps, or seconds as numbers", found=str(values.type))
    seconds = np.asarray(values.cast(pa.float64()))
    for row, value in enumerate(seconds, start=1):
        _seconds_ns(float(value), f"{where}: row {row}")
    return np.rint(seconds * 1e9).astype(np.int64), where
