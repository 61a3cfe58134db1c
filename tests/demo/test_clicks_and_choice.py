from __future__ import annotations

import pytest
from liftgate.core.errors import InputError, LiftgateError, RunFailed
from liftgate.core.progress import silent
from liftgate.core.requests import Requests
from liftgate.core.verdict import Outcome
from liftgate.demo.choice import Facts, choose
from liftgate.demo.clicks import ClickModel, examined
from liftgate.demo.replay import replay, visits
from liftgate.demo.stages import Stages
from liftgate.serve.port import free_port


def test_attention_falls_with_the_position_like_ndcgs_discount() -> None:
    assert [round(examined(i), 4) for i in (0, 1, 2, 6)] == [1.0, 0.6309, 0.5, 0.3333]


def test_what_is_surely_wanted_is_clicked_at_the_top_and_nothing_else() -> None:
    model = ClickModel(seed=0, liked=1.0, other=0.0)
    assert model.clicked("r", [4, 5, 6], {4}) == [0]
    assert model.clicked("r", [5, 6, 7], {4}) == []


def test_clicks_have_the_stated_rates() -> None:
    model = ClickModel(seed=1)
    ids = [f"r{i}" for i in range(20_000)]
    first = sum(model.clicked(i, [7], {7}) == [0] for i in ids) / len(ids)
    third = sum(2 in model.clicked(i, [1, 2, 7], {7}) for i in ids) / len(ids)
    noise = sum(model.clicked(i, [7], set()) == [0] for i in ids) / len(ids)
    # 0.8, 0.8 * 0.5 and 0.01, within four standard errors.
    assert abs(first - 0.8) < 0.0115
    assert abs(third - 0.4) < 0.014
    assert abs(noise - 0.01) < 0.003


def test_the_same_list_gets_the_same_clicks_and_another_seed_others() -> None:
    shown, liked = list(range(10)), {0, 2, 4, 6, 8}
    answers = {seed: [ClickModel(seed=seed).clicked(f"r{i}", shown, liked) for i in range(50)] for seed in (0, 1)}
    assert answers[0] == [ClickModel(seed=0).clicked(f"r{i}", shown, liked) for i in range(50)]
    assert answers[0] != answers[1]


def facts(name: str, outcome: Outcome, p95: float | None, ndcg: float | None, failed: int = 0) -> Facts:
    return Facts(name=name, outcome=outcome, p95_ms=p95, ndcg=ndcg, failed_gates=failed)


def test_the_fastest_passing_candidate_is_chosen() -> None:
    a, b, c = facts("a", Outcome.PASS, 3.0, 0.5), facts("b", Outcome.PASS, 2.0, 0.4), facts("c", Outcome.FAIL, 1.0, 0.6)
    assert choose([a, b, c]).name == "b"


def test_undecided_comes_next_and_says_that_nothing_passed() -> None:
    a, b = facts("a", Outcome.FAIL, 1.0, 0.9), facts("b", Outcome.UNDECIDED, 2.0, 0.1)
    assert choose([a, b]).name == "b"
    assert "no candidate passes" in choose([a, b]).reason


def test_when_all_fail_the_fastest_of_those_with_fewest_failed_gates_goes_on_to_learn() -> None:
    worst, slow, fast = facts("a", Outcome.FAIL, 0.1, 0.2, 2), facts("b", Outcome.FAIL, 1.0, 0.3, 1), facts("c", Outcome.FAIL, 0.5, None, 1)
    assert choose([worst, slow, fast]).name == "c"
    found = choose([worst, slow, facts("d", Outcome.INVALID, 5.0, 0.1)])
    assert found.name == "d"
    assert found.reason.startswith("2 of 3 candidates FAIL and 1 could not be measured (INVALID)")


def test_an_unknown_latency_is_never_the_fastest() -> None:
    assert choose([facts("a", Outcome.PASS, None, 0.2), facts("b", Outcome.PASS, 9.0, 0.2)]).name == "b"
    with pytest.raises(InputError):
        choose([])


def request() -> Requests:
    columns: dict[str, list[object]] = {
        "request_id": ["r1"],
        "user_id": ["7"],
        "segment": ["casual"],
        "user": [7],
        "history": [[0, 3]],
        "item": [[5, 6, 8]],
        "label": [[0.0, 1.0, 0.0]],
    }
    return Requests.of(columns)


def test_a_visit_sends_request_inputs_once_and_candidates_in_rows() -> None:
    visit = next(visits(request()))
    assert visit.body == (
        b'{"id":"r1","parameters":{"user_id":"7","segment":"casual"},"inputs":['
        b'{"name":"user","shape":[1],"datatype":"INT64","data":[7]},'
        b'{"name":"history","shape":[1,2],"datatype":"INT64","data":[0,3]},'
        b'{"name":"item","shape":[3],"datatype":"INT64","data":[5,6,8]}],"outputs":[{"name":"slate"}]}'
    )
    assert visit.liked == {6}


def test_a_router_that_is_not_there_stops_the_replay() -> None:
    with pytest.raises(RunFailed, match="no answer"):
        replay(request(), ClickModel(seed=0), host="127.0.0.1", port=free_port(), experiment="demo", seed=0)


def test_a_failing_stage_is_named_and_its_error_goes_on() -> None:
    from contextlib import nullcontext  # noqa: PLC0415

    lines: list[str] = []
    ticks = iter([0.0, 1.0, 3.5, 3.5, 4.0, 5.0])
    stages = Stages(2, tell=lines.append, bar=lambda: nullcontext(silent), clock=lambda: next(ticks))
    with stages.stage("first"):
        pass
    with pytest.raises(LiftgateError), stages.stage("second"):
        raise InputError("here", "is wrong")
    assert lines == ["[1/2] first", "      2.5 s (total 4 s)", "[2/2] second", "      stopped in stage 2 (second) after 1.0 s"]
    assert stages.seconds == {"first": 2.5}
