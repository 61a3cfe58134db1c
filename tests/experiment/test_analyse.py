from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np
import pytest
from liftgate.core.errors import InputError
from liftgate.core.verdict import Outcome
from liftgate.experiment.analyse import _effect, analyse, check_sample_ratio
from liftgate.experiment.assignment import assign
from liftgate.experiment.cli import app
from liftgate.experiment.config import Experiment, parse_experiment
from liftgate.experiment.logs import summarise
from liftgate.experiment.records import EventIn, Exposure, Shown, exposure_id_of
from liftgate.experiment.result import Analysis
from liftgate.experiment.statistics import RatioSums
from typer.testing import CliRunner

TOML = """
name = "x"
control = "old"
minimum_effect = "20%"
arms = [{ name = "old", model = "v1.0", weight = 1 }, { name = "new", model = "v1.1", weight = 1 }]
"""
EXPERIMENT = parse_experiment(TOML, where="experiment.toml")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Log:
    """Writes the two files a router writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: dict[str, list[bytes]] = {"exposures.jsonl": [], "events.jsonl": []}

    def show(self, unit: str, request: str, items: int = 4, **changes: object) -> str:
        assigned = assign(EXPERIMENT, unit)
        exposure = Exposure(
            exposure_id=exposure_id_of("x", unit, request),
            request_id=request,
            ts=START + timedelta(seconds=len(self.lines["exposures.jsonl"])),
            experiment="x",
            salt="x",
            config="c",
            unit=unit,
            bucket=assigned.bucket,
            coverage=1.0,
            enrolled=True,
            assigned_arm=assigned.arm,
            served_arm=assigned.arm,
            model="m",
            digest=f"digest-{assigned.arm}",
            reason="assigned",
            detail="",
            model_ms=1.0,
            total_ms=2.0,
            candidates=items,
            slate=tuple(Shown(position=p, index=p, item=100 + p, score=-p) for p in range(items)),
        )
        exposure = msgspec.structs.replace(exposure, **changes)
        self.lines["exposures.jsonl"].append(msgspec.json.encode(exposure))
        return exposure.exposure_id

    def click(self, exposure_id: str, *, item: int | None = None, position: int | None = None, kind: str = "click") -> None:
        event = EventIn(kind=kind, exposure_id=exposure_id, item=item, position=position).record("x", START)
        self.lines["events.jsonl"].append(msgspec.json.encode(event))

    def write(self, tail: bytes = b"") -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, lines in self.lines.items():
            (self.folder / name).write_bytes(b"".join(line + b"\n" for line in lines) + tail)
        return self.folder


def members(arm: str, count: int) -> list[str]:
    """The first `count` units that the experiment assigns to `arm`."""
    found = (f"u{i}" for i in range(100_000))
    return list(islice((unit for unit in found if assign(EXPERIMENT, unit).arm == arm), count))


def filled(folder: Path, rates: dict[str, float], users: int = 300, segments: bool = False) -> Path:
    """`users` users per arm, 20 slates of 5 each, clicked with the arm's rate."""
    rng = np.random.default_rng(3)
    log = Log(folder)
    for arm, rate in rates.items():
        for number, unit in enumerate(members(arm, users)):
            for request in range(4):
                exposure = log.show(unit, f"r{request}", items=5, segment=("power" if number % 2 else "casual") if segments else None)
                for position in np.flatnonzero(rng.random(5) < rate):
                    log.click(exposure, position=int(position))
    return log.write()


def test_a_click_counts_once_and_only_on_an_item_that_was_shown(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    (unit,) = members("old", 1)
    exposure = log.show(unit, "r1")
    log.click(exposure, item=101)
    log.click(exposure, item=101)  # the same click again
    log.click(exposure, position=1)  # and once more, by position
    log.click(exposure, item=101, position=3)  # position 3 showed another item
    log.click(exposure, item=999)
    log.click(exposure, item=103, kind="purchase")
    log.click("unknown", item=101)
    found = summarise(EXPERIMENT, log.write())
    assert (found.arms["old"].sums.c, found.arms["old"].sums.k) == (1, 4)
    assert found.ignored == {
        "events_of_other_kinds": 1,
        "clicks_without_analysed_exposure": 1,
        "clicks_on_items_not_shown": 2,
        "clicks_repeated": 2,
    }


def test_a_retry_is_one_exposure_and_the_first_record_counts(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    (unit,) = members("new", 1)
    log.show(unit, "r1", items=4)
    log.click(log.show(unit, "r1", items=2), item=100)
    found = summarise(EXPERIMENT, log.write())
    assert (found.arms["new"].exposures, found.arms["new"].sums.k, found.arms["new"].sums.c) == (1, 4, 1)
    assert found.ignored == {"exposures_repeated": 1}


def test_overrides_outsiders_and_strangers_are_left_out(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    (unit,) = members("old", 1)
    log.show(unit, "kept")
    log.show(unit, "forced", reason="override")
    log.show("other", "r", enrolled=False, reason="not_enrolled")
    log.show(unit, "old salt", salt="before")
    log.show(unit, "other test", experiment="y")
    found = summarise(EXPERIMENT, log.write())
    assert found.arms["old"].exposures == 1
    assert found.ignored == {"exposures_by_override": 1, "exposures_not_enrolled": 1, "exposures_of_other_experiments": 2}


def test_a_user_seen_in_two_arms_is_left_out_of_both(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    first, second = members("old", 2)
    log.show(first, "r1")
    log.show(second, "r1")
    log.show(second, "r2", assigned_arm="new")
    found = summarise(EXPERIMENT, log.write())
    assert (found.arms["old"].sums.users, found.arms["new"].sums.users) == (1, 0)
    assert found.ignored == {"users_in_several_arms": 1, "exposures_of_users_in_several_arms": 2}


def test_a_fallback_stays_in_the_arm_it_was_assigned_to(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    (unit,) = members("new", 1)
    log.show(unit, "r1", served_arm="old", reason="fallback")
    found = analyse(EXPERIMENT, log.write())
    assert {arm.arm: arm.users for arm in found.arms} == {"old": 0, "new": 1}
    assert "arm new: 1 of 1 exposures were answered by the control (fallback)" in found.notes


def test_a_torn_last_line_is_counted_and_left_out(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    for unit in members("old", 3):
        log.show(unit, "r1")
    found = summarise(EXPERIMENT, log.write(tail=b'{"exposure_id":"abc","slate":[{"posi'))
    assert found.arms["old"].exposures == 3
    assert found.ignored == {"unreadable_lines": 2}


def test_logs_of_several_routers_are_read_together(tmp_path: Path) -> None:
    for router, unit in enumerate(members("old", 2)):
        log = Log(tmp_path / "logs" / f"router-{router}")
        log.show(unit, "r1")
        log.write()
    assert summarise(EXPERIMENT, tmp_path / "logs").arms["old"].sums.users == 2


def test_the_sums_from_the_logs_equal_those_by_numpy(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    log = Log(tmp_path / "logs")
    expected = {}
    for arm in ("old", "new"):
        table = []
        for unit in members(arm, 60):
            clicks = impressions = 0
            for request in range(int(rng.integers(1, 6))):
                size = int(rng.integers(1, 9))
                exposure = log.show(unit, f"r{request}", items=size)
                hits = np.flatnonzero(rng.random(size) < 0.2)
                for position in hits:
                    log.click(exposure, item=100 + int(position))
                clicks, impressions = clicks + len(hits), impressions + size
            table.append((clicks, impressions))
        c, k = np.array(table, dtype=float).T
        expected[arm] = (len(c), c.sum(), k.sum(), c @ c, k @ k, c @ k)
    found = summarise(EXPERIMENT, log.write())
    for arm, sums in expected.items():
        assert msgspec.structs.astuple(found.arms[arm].sums) == sums


@pytest.mark.parametrize(
    ("rates", "outcome"),
    [
        ({"old": 0.10, "new": 0.20}, Outcome.PASS),
        ({"old": 0.20, "new": 0.10}, Outcome.FAIL),
        ({"old": 0.10, "new": 0.10}, Outcome.UNDECIDED),
    ],
)
def test_the_verdict_follows_the_interval(tmp_path: Path, rates: dict[str, float], outcome: Outcome) -> None:
    found = analyse(EXPERIMENT, filled(tmp_path / "logs", rates))
    assert found.verdict.outcome is outcome
    assert found.effects[0].design_effect == pytest.approx(1, abs=0.2)


def test_an_undecided_experiment_says_how_many_users_are_missing(tmp_path: Path) -> None:
    effect = analyse(EXPERIMENT, filled(tmp_path / "logs", {"old": 0.10, "new": 0.10}, users=100)).effects[0]
    assert effect.outcome is Outcome.UNDECIDED
    assert effect.users_needed is not None
    # 20 independent impressions a user: about (1.96 + 0.84)^2 * 2 * 0.1 * 0.9 / 0.02^2 / 20 users.
    assert effect.users_needed == pytest.approx(176.6, rel=0.4)
    assert f"{effect.users_needed - 100:,} more users needed in the treatment arm" in effect.reason


def test_a_sample_ratio_mismatch_makes_everything_invalid(tmp_path: Path) -> None:
    log = Log(tmp_path / "logs")
    for arm, count in (("old", 300), ("new", 200)):
        for unit in members(arm, count):
            log.click(log.show(unit, "r"), position=int(arm == "old"))
    found = analyse(EXPERIMENT, log.write())
    assert not found.sample_ratio.ok
    assert found.verdict.outcome is Outcome.INVALID
    assert found.effects[0].outcome is Outcome.INVALID


def test_a_small_imbalance_is_no_mismatch() -> None:
    # 5200 of 10200 at 50:50: p = 0.048, well above the threshold.
    assert check_sample_ratio(EXPERIMENT, {"old": 5200, "new": 5000}).ok
    assert not check_sample_ratio(EXPERIMENT, {"old": 5500, "new": 5000}).ok


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        ({"old": 5}, "has no users"),
        ({"old": 5, "new": 1}, "has one user"),
        ({"old": 5, "new": 2}, "would have 6.0 clicks at the control's rate"),
    ],
)
def test_too_little_data_is_undecided_without_any_interval(tmp_path: Path, users: dict[str, int], reason: str) -> None:
    log = Log(tmp_path / "logs")
    for arm, count in users.items():
        for unit in members(arm, count):
            for request in range(3):
                exposure = log.show(unit, f"r{request}")
                if arm == "old":
                    log.click(exposure, position=request)
    (effect,) = analyse(EXPERIMENT, log.write()).effects
    assert effect.outcome is Outcome.UNDECIDED
    assert reason in effect.reason
    assert (effect.relative.low, effect.relative.high, effect.p_value, effect.users_needed) == (None, None, None, None)


@pytest.mark.parametrize("clicks", [0, 5])
def test_a_treatment_that_nobody_clicks_on_any_more_fails(clicks: int) -> None:
    # 5,000 users of 20 impressions each: 2,000 clicks of 2,000 users in the control, hardly any in the treatment.
    def sums(clicks: int) -> RatioSums:
        return RatioSums(users=5000, c=clicks, k=100_000, cc=clicks, kk=2_000_000, ck=20 * clicks)

    effect = _effect(EXPERIMENT, {"old": sums(2000), "new": sums(clicks)}, "new", "all", alpha=0.05, trusted=True)
    assert effect.outcome is Outcome.FAIL
    assert effect.reason.startswith(f"{clicks} clicks where the control's rate gives 2,000")
    assert effect.absolute.high is not None
    assert effect.absolute.high < 0


def test_segments_are_adjusted_and_only_warn(tmp_path: Path) -> None:
    found = analyse(EXPERIMENT, filled(tmp_path / "logs", {"old": 0.10, "new": 0.20}, segments=True))
    assert [effect.segment for effect in found.segments] == ["casual", "power"]
    assert [f.level for f in found.verdict.findings] == ["error", "error", "warn", "warn"]
    assert analyse(EXPERIMENT, tmp_path / "logs", segments=False).segments == ()


def test_a_declared_segment_that_nobody_has_is_undecided(tmp_path: Path) -> None:
    experiment: Experiment = msgspec.structs.replace(EXPERIMENT, segments=("vip",))
    (effect,) = analyse(experiment, filled(tmp_path / "logs", {"old": 0.1, "new": 0.1}, users=30)).segments
    assert (effect.segment, effect.outcome) == ("vip", Outcome.UNDECIDED)


def test_a_folder_without_logs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"exposures\.jsonl"):
        analyse(EXPERIMENT, tmp_path / "nothing")


def test_the_command_writes_the_result_and_exits_with_the_verdict(tmp_path: Path) -> None:
    logs = filled(tmp_path / "logs", {"old": 0.20, "new": 0.10})
    (tmp_path / "experiment.toml").write_text(TOML)
    command = ["analyse", str(tmp_path / "experiment.toml"), "--logs", str(logs), "--out", str(tmp_path / "run"), "--json", "-"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["verdict"]["outcome"] == "FAIL"
    assert "worse than the control" in result.stderr
    assert "CTR %, interval" in result.stderr
    written = msgspec.json.decode((tmp_path / "run" / "analysis.json").read_bytes(), type=Analysis)
    assert written.effects[0].treatment == "new"


def test_a_missing_experiment_exits_with_two(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["analyse", str(tmp_path / "none.toml"), "--logs", str(tmp_path)])
    assert result.exit_code == 2
    assert "expected a TOML file, found nothing" in result.stderr


def test_the_plan_command_answers_in_one_line() -> None:
    result = CliRunner().invoke(app, ["plan", "2%", "--", "-5%"])
    assert result.exit_code == 0
    assert "300,134 impressions" in result.stdout
