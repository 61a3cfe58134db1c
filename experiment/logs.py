"""Reading the router's logs with DuckDB: which exposures count, which clicks belong to them, and the sums per arm."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..core.errors import InputError
from .config import Experiment
from .records import EVENTS_FILE, EXPOSURES_FILE
from .statistics import RatioSums

if TYPE_CHECKING:
    import duckdb

_EXPOSURE_COLUMNS = {
    "exposure_id": "VARCHAR",
    "ts": "TIMESTAMPTZ",
    "experiment": "VARCHAR",
    "salt": "VARCHAR",
    "unit": "VARCHAR",
    "enrolled": "BOOLEAN",
    "assigned_arm": "VARCHAR",
    "served_arm": "VARCHAR",
    "digest": "VARCHAR",
    "reason": "VARCHAR",
    "total_ms": "DOUBLE",
    "slate": "STRUCT(position INTEGER, item BIGINT)[]",
    "segment": "VARCHAR",
}
_EVENT_COLUMNS = {"exposure_id": "VARCHAR", "kind": "VARCHAR", "item": "BIGINT", "position": "INTEGER"}

# The first record of an exposure counts; a unit in two arms (weights changed under one salt) tells nothing about either.
_PREPARE = """
CREATE TABLE mine AS SELECT * FROM raw_exposures WHERE experiment = $experiment AND salt = $salt;
CREATE TABLE firsts AS
    SELECT * FROM mine WHERE enrolled AND reason != 'override'
    QUALIFY row_number() OVER (PARTITION BY exposure_id ORDER BY ts) = 1;
CREATE TABLE movers AS SELECT unit FROM firsts GROUP BY unit HAVING count(DISTINCT assigned_arm) > 1;
CREATE TABLE exposures AS SELECT * FROM firsts WHERE unit NOT IN (SELECT unit FROM movers);
CREATE TABLE shown AS
    SELECT exposure_id, entry.position AS position, entry.item AS item
    FROM (SELECT exposure_id, unnest(slate) AS entry FROM exposures);
CREATE TABLE hits AS
    SELECT e.row, s.exposure_id, min(s.position) AS position
    FROM (SELECT row_number() OVER () AS row, * FROM raw_events WHERE kind = 'click') e
    JOIN shown s ON s.exposure_id = e.exposure_id
        AND (e.item IS NULL OR e.item = s.item) AND (e.position IS NULL OR e.position = s.position)
    GROUP BY e.row, s.exposure_id;
CREATE TABLE clicks AS SELECT exposure_id, count(DISTINCT position) AS clicks FROM hits GROUP BY exposure_id;
CREATE TABLE joined AS
    SELECT x.assigned_arm AS arm, x.unit, x.ts, x.segment, x.total_ms, len(x.slate) AS k, coalesce(c.clicks, 0) AS c
    FROM exposures x LEFT JOIN clicks c USING (exposure_id);
CREATE TABLE units AS
    SELECT arm, unit, arg_min(segment, ts) AS segment, sum(k)::DOUBLE AS k, sum(c)::DOUBLE AS c, count(*) AS exposures
    FROM joined GROUP BY arm, unit;
"""
_SUMS = "count(*), coalesce(sum(c), 0), coalesce(sum(k), 0), coalesce(sum(c*c), 0), coalesce(sum(k*k), 0), coalesce(sum(c*k), 0)"


class ArmLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the logs hold about one arm; latencies are those of the analysed exposures, end to end."""

    sums: RatioSums
    exposures: int
    fallbacks: int
    digests: tuple[str, ...]
    latency_p50_ms: float | None
    latency_p95_ms: float | None


class LogSummary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The logs of one experiment, reduced to sums: by arm, and by segment and arm. `ignored` counts what was left out, and why."""

    arms: dict[str, ArmLog]
    segments: dict[str, dict[str, RatioSums]]
    ignored: dict[str, int]
    first_at: datetime | None
    last_at: datetime | None


def summarise(experiment: Experiment, logs: Path) -> LogSummary:
    """Read every `exposures.jsonl` and `events.jsonl` below `logs` (several routers' folders may lie side by side).

    A line that is not whole JSON (torn by a crash) is counted and left out. Raises InputError when there is no exposure file.
    """
    import duckdb  # noqa: PLC0415 - not needed for --help

    exposure_files = sorted(str(p) for p in logs.rglob(EXPOSURES_FILE))
    if not exposure_files:
        found = "no such folder" if not logs.is_dir() else f"none in {logs}"
        raise InputError.mismatch(
            str(logs), expected=f"a folder with {EXPOSURES_FILE}", found=found, fix="give the folder that `serve --logs` wrote"
        )
    with duckdb.connect(":memory:", config={"threads": 2}) as db:
        db.execute("SET TimeZone = 'UTC'")
        try:
            _load(db, "raw_exposures", exposure_files, _EXPOSURE_COLUMNS)
            _load(db, "raw_events", sorted(str(p) for p in logs.rglob(EVENTS_FILE)), _EVENT_COLUMNS)
        except duckdb.Error as error:
            raise InputError(str(logs), f"cannot be read as logs ({str(error).splitlines()[0]})") from None
        where = {"experiment": experiment.name, "salt": experiment.effective_salt}
        for statement in _PREPARE.split(";\n"):
            if statement.strip():
                db.execute(statement, {k: v for k, v in where.items() if f"${k}" in statement})
        span = db.execute("SELECT epoch_us(min(ts)), epoch_us(max(ts)) FROM exposures").fetchone() or (None, None)
        return LogSummary(
            arms={arm.name: _arm(db, arm.name) for arm in experiment.arms},
            segments=_segments(db),
            ignored=_ignored(db, [arm.name for arm in experiment.arms]),
            first_at=_time(span[0]),
            last_at=_time(span[1]),
        )


def _load(db: duckdb.DuckDBPyConnection, table: str, files: list[str], columns: dict[str, str]) -> None:
    """A table of the files' lines; a line that cannot be read becomes a row of NULLs."""
    if not files:
        fields = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        db.execute(f"CREATE TABLE {table} ({fields})")
        return
    options = "format = 'newline_delimited', ignore_errors = true, maximum_object_size = 67108864"
    db.execute(f"CREATE TABLE {table} AS SELECT * FROM read_json($files, columns = {columns}, {options})", {"files": files})


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else datetime.fromtimestamp(micros / 1e6, tz=UTC)


def _sums(row: tuple[float, ...]) -> RatioSums:
    users, c, k, cc, kk, ck = row
    return RatioSums(users=int(users), c=float(c), k=float(k), cc=float(cc), kk=float(kk), ck=float(ck))


def _arm(db: duckdb.DuckDBPyConnection, arm: str) -> ArmLog:
    sums = db.execute(f"SELECT {_SUMS} FROM units WHERE arm = $arm", {"arm": arm}).fetchone()
    seen = db.execute(
        "SELECT count(*), quantile_cont(total_ms, 0.5), quantile_cont(total_ms, 0.95), count(*) FILTER (reason = 'fallback'),"
        " list(DISTINCT digest ORDER BY digest) FILTER (served_arm = assigned_arm) FROM exposures WHERE assigned_arm = $arm",
        {"arm": arm},
    ).fetchone()
    if sums is None or seen is None:
        raise AssertionError("an aggregate without GROUP BY always has one row")
    exposures, p50, p95, fallbacks, digests = seen
    return ArmLog(
        sums=_sums(sums), exposures=exposures, fallbacks=fallbacks, digests=tuple(digests or ()), latency_p50_ms=p50, latency_p95_ms=p95
    )


def _segments(db: duckdb.DuckDBPyConnection) -> dict[str, dict[str, RatioSums]]:
    found: dict[str, dict[str, RatioSums]] = {}
    query = f"SELECT segment, arm, {_SUMS} FROM units WHERE segment IS NOT NULL GROUP BY segment, arm ORDER BY segment, arm"
    for segment, arm, *row in db.execute(query).fetchall():
        found.setdefault(segment, {})[arm] = _sums(tuple(row))
    return found


def _ignored(db: duckdb.DuckDBPyConnection, arms: list[str]) -> dict[str, int]:
    """How many exposures, events and users were left out, by reason; reasons that never happened are absent."""
    counts = {
        "unreadable_lines": "SELECT (SELECT count(*) FROM raw_exposures WHERE exposure_id IS NULL)"
        " + (SELECT count(*) FROM raw_events WHERE exposure_id IS NULL)",
        "exposures_of_other_experiments": "SELECT (SELECT count(exposure_id) FROM raw_exposures) - (SELECT count(*) FROM mine)",
        "exposures_by_override": "SELECT count(*) FROM mine WHERE reason = 'override'",
        "exposures_not_enrolled": "SELECT count(*) FROM mine WHERE NOT enrolled AND reason != 'override'",
        "exposures_repeated": "SELECT (SELECT count(*) FROM mine WHERE enrolled AND reason != 'override') - (SELECT count(*) FROM firsts)",
        "users_in_several_arms": "SELECT count(*) FROM movers",
        "exposures_of_users_in_several_arms": "SELECT (SELECT count(*) FROM firsts) - (SELECT count(*) FROM exposures)",
        "events_of_other_kinds": "SELECT count(*) FROM raw_events WHERE kind != 'click'",
        "clicks_without_analysed_exposure": "SELECT count(*) FROM raw_events e WHERE kind = 'click'"
        " AND NOT EXISTS (SELECT 1 FROM exposures x WHERE x.exposure_id = e.exposure_id)",
        "clicks_on_items_not_shown": "SELECT (SELECT count(*) FROM raw_events e WHERE kind = 'click'"
        " AND EXISTS (SELECT 1 FROM exposures x WHERE x.exposure_id = e.exposure_id)) - (SELECT count(*) FROM hits)",
        "clicks_repeated": "SELECT (SELECT count(*) FROM hits) - (SELECT coalesce(sum(clicks), 0) FROM clicks)",
    }
    found = {name: int((db.execute(query).fetchone() or (0,))[0]) for name, query in counts.items()}
    unknown = db.execute("SELECT count(*) FROM exposures WHERE NOT list_contains($arms, assigned_arm)", {"arms": arms}).fetchone() or (0,)
    found["exposures_of_unknown_arms"] = int(unknown[0])
    return {name: count for name, count in found.items() if count}
